// A zen server that passes the first stage: one client at a time, one question a read. The rest is yours.
package main

import (
	"log"
	"net"
	"os"
)

var answers = map[string]string{
	"Beautiful is better than?": "ugly.",
	"Explicit is better than?":  "implicit.",
	"Simple is better than?":    "complex.",
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		question := make([]byte, 4096)
		for n, err := client.Read(question); err == nil; n, err = client.Read(question) {
			answer, known := answers[string(question[:n])]
			if !known {
				answer = "Error: unknown aphorism."
			}
			client.Write([]byte(answer))
		}
		client.Close()
	}
}

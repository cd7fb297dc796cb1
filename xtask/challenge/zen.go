// A zen server in Go: a goroutine for each client.
package main

import (
	"bufio"
	"flag"
	"log"
	"net"
	"time"
)

var answers = map[string]string{
	"Beautiful is better than?": "ugly.",
	"Explicit is better than?":  "implicit.",
	"Simple is better than?":    "complex.",
}

var port = flag.String("p", "1060", "port on 127.0.0.1")
var delay = flag.Duration("delay", 0, "how long each answer waits")

func main() {
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:"+*port)
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(client.(*net.TCPConn))
	}
}

func serve(client *net.TCPConn) {
	defer client.Close()
	input, output := bufio.NewReader(client), bufio.NewWriter(client)
	var question []byte
	for {
		// All answers to what has arrived are sent together.
		if input.Buffered() == 0 && output.Flush() != nil {
			return
		}
		b, err := input.ReadByte()
		if err != nil {
			return
		}
		if len(question) > 0 || (b != ' ' && b != '\t' && b != '\r' && b != '\n') {
			question = append(question, b)
		}
		if len(question) > 256 {
			output.WriteString("Error: question too long.")
			output.Flush()
			client.CloseWrite()
			for err == nil {
				_, err = input.Discard(4096)
			}
			return
		}
		if b == '?' {
			time.Sleep(*delay)
			answer, known := answers[string(question)]
			if !known {
				answer = "Error: unknown aphorism."
			}
			output.WriteString(answer)
			question = question[:0]
		}
	}
}

// A zen server that passes the first stage: every piece that arrives is taken for a question. The rest is yours.
const net = require("net");

const answers = new Map([
  ["Beautiful is better than?", "ugly."],
  ["Explicit is better than?", "implicit."],
  ["Simple is better than?", "complex."],
]);

const server = net.createServer((client) => {
  client.on("data", (piece) => {
    // latin1 keeps every byte.
    client.write(answers.get(piece.toString("latin1")) ?? "Error: unknown aphorism.");
  });
  client.on("error", () => client.destroy());
});

server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 128 });

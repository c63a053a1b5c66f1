// A server that answers each request with what Node read of it: JSON in Base64, in a header, so that HEAD tells it too.
// It prints its port, and ends with its input.

"use strict";

const http = require("node:http");

const pairs = (raw) => raw.flatMap((name, at) => (at % 2 ? [] : [[name, raw[at + 1]]]));

const server = http.createServer({ maxHeaderSize: 65536, keepAliveTimeout: 30000 }, (request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const shown = Buffer.from(
      JSON.stringify({
        method: request.method,
        target: request.url,
        headers: pairs(request.rawHeaders),
        body: Buffer.concat(pieces).toString("latin1"),
        trailers: pairs(request.rawTrailers),
      }),
    );
    response.writeHead(200, { "Content-Length": 0, Parsed: shown.toString("base64") });
    response.end();
  });
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit()).resume();

// An upstream as they are in practice: it takes a moment to answer, ends idle connections after KEEP_ALIVE_MS, and its
// event loop is blocked at times, so that a request can sit unread in the socket's queue when the timer that closes
// the socket is due.
'use strict';
const http = require('http');

// Longer than a burst takes to arrive, so that each of its requests needs a connection of its own.
const ANSWER_MS = 30;
const BLOCKED_MS = 40;
const FREE_MS = [20, 80];

let connections = 0;
const server = http.createServer((request, response) => {
  if (request.url === '/connections') {
    connections -= 1; // Not the one that asks.
    return response.end(`${connections}\n`);
  }
  request.resume();
  request.on('end', () => setTimeout(() => response.end('ok\n'), ANSWER_MS));
});
server.on('connection', () => { connections += 1; });
server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_MS);
server.listen(Number(process.env.PORT), process.env.ADDRESS, () => console.log(server.address().port));

// Blocks as synchronous work does, without taking a core away from whoever measures. After the poll phase
// (setImmediate), as in a request's handler: timers run before the next poll, so a socket whose time is up is closed with
// whatever has reached it meanwhile. At odd intervals: regular ones can fall into step with the timeout and miss it.
const never = new Int32Array(new SharedArrayBuffer(4));
function block() {
  Atomics.wait(never, 0, 0, BLOCKED_MS);
  const free = FREE_MS[0] + Math.random() * (FREE_MS[1] - FREE_MS[0]);
  setTimeout(() => setImmediate(block), free);
}
block();

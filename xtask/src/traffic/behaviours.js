// An upstream that does what the path asks for. With WORKERS, that many processes answer, and one that ends is replaced.
'use strict';
const cluster = require('cluster');
const http = require('http');

const ANSWER = 'ok\n';
const ANSWER_MS = 30;
const PAUSE_MS = 300;
// Longer than the proxy waits.
const SLOW_MS = 4000;
// Within this time nginx has the whole answer and counts its idle time; the server's own begins with its end().
const LATE_MS = 40;

const behaviours = {
  ok: (request, response) => setTimeout(() => response.end(ANSWER), ANSWER_MS),
  pause: (request, response) => setTimeout(() => response.end(ANSWER), PAUSE_MS),
  slow: (request, response) => setTimeout(() => response.end(ANSWER), SLOW_MS),
  late: (request, response) => {
    response.writeHead(200, { 'Content-Length': ANSWER.length });
    response.write(ANSWER);
    setTimeout(() => response.end(), LATE_MS);
  },
  close: (request) => setTimeout(() => request.socket.destroy(), ANSWER_MS),
  half: (request, response) => {
    response.writeHead(200, { 'Content-Length': 2 * ANSWER.length });
    response.write(ANSWER);
    setTimeout(() => request.socket.resetAndDestroy(), ANSWER_MS);
  },
  crash: () => process.exit(1),
};
// Closes with the rest of a large request unread.
const refuse = (request) => setTimeout(() => request.socket.destroy(), ANSWER_MS);

let connections = 0;
const server = http.createServer((request, response) => {
  const asked = request.url.split('/').pop();
  if (asked === 'refuse') return refuse(request);
  request.resume();
  if (request.url === '/connections') {
    connections -= 1; // Not the one that asks.
    return response.end(`${connections}\n`);
  }
  request.on('end', () => (behaviours[asked] || behaviours.ok)(request, response));
});
server.on('connection', () => { connections += 1; });
server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_MS);

const workers = Number(process.env.WORKERS);
const tell = (address) => console.log(address.port);
if (workers > 0 && cluster.isPrimary) {
  let listening = 0;
  cluster.on('listening', (worker, address) => { if (++listening === workers) tell(address); });
  cluster.on('exit', () => cluster.fork());
  for (let count = 0; count < workers; count++) cluster.fork();
} else {
  const told = workers > 0 ? () => {} : () => tell(server.address());
  server.listen(Number(process.env.PORT), process.env.ADDRESS, told);
}

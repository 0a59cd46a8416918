// A client with Node.js's own pool of connections, which has a limit. `/ask/PORT` begins a request, `/told` tells what came
// of all of them: answered, given up for want of a connection, failed.
const http = require('http');

const agent = new http.Agent({ keepAlive: true, maxSockets: Number(process.env.WORKERS) });
// For a connection of the pool.
const PATIENCE_MS = 3000;
const counts = { answered: 0, givenUp: 0, failed: 0 };

function ask(port) {
  let sent = false;
  const request = http.get({ port, path: '/slow/2', agent }, (answer) => {
    answer.resume();
    answer.on('end', () => counts.answered++);
  });
  request.on('socket', () => { sent = true; });
  request.on('error', () => { counts[sent ? 'failed' : 'givenUp']++; });
  setTimeout(() => { if (!sent) request.destroy(); }, PATIENCE_MS);
}

const server = http.createServer((request, response) => {
  const [, verb, port] = request.url.split('/');
  if (verb === 'ask') ask(Number(port));
  response.end(`${counts.answered} ${counts.givenUp} ${counts.failed}\n`);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));

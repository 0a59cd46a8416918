// An HTTP/2 upstream without TLS that says GOAWAY on a connection that was idle for KEEP_ALIVE_MS, and closes it.
'use strict';
const http2 = require('http2');

const ANSWER_MS = 30;

const server = http2.createServer();
server.on('session', (session) => {
  session.setTimeout(Number(process.env.KEEP_ALIVE_MS), () => session.close());
});
server.on('stream', (stream) => {
  stream.resume();
  stream.on('error', () => {}); // The client left.
  setTimeout(() => {
    if (stream.destroyed) return;
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.end('ok\n');
  }, ANSWER_MS);
});
server.listen(Number(process.env.PORT), process.env.ADDRESS, () => console.log(server.address().port));

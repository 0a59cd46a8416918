// An HTTPS upstream that ends idle connections after KEEP_ALIVE_MS, with TLS's goodbye before the FIN. Its event loop is
// blocked at times as in server.js.
'use strict';
const https = require('https');

const ANSWER_MS = 30;

// Called by the line that follows this file.
function serve(key, cert) {
  const server = https.createServer({ key, cert }, (request, response) => {
    request.resume();
    request.on('end', () => setTimeout(() => response.end('ok\n'), ANSWER_MS));
  });
  server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_MS);
  server.listen(Number(process.env.PORT), process.env.ADDRESS, () => console.log(server.address().port));
}

const never = new Int32Array(new SharedArrayBuffer(4));
function block() {
  Atomics.wait(never, 0, 0, 40);
  setTimeout(() => setImmediate(block), 20 + Math.random() * 60);
}
block();

// An upstream with Express, whose event loop is blocked at times as in server.js.
'use strict';
const app = require('express')();

app.all(/.*/, (request, response) => setTimeout(() => response.send('ok\n'), 30));
const server = app.listen(Number(process.env.PORT), process.env.ADDRESS, () => console.log(server.address().port));
server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_MS);

const never = new Int32Array(new SharedArrayBuffer(4));
function block() {
  Atomics.wait(never, 0, 0, 40);
  setTimeout(() => setImmediate(block), 20 + Math.random() * 60);
}
block();

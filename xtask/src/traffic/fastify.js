// An upstream with Fastify, whose event loop is blocked at times as in server.js.
'use strict';
const app = require('fastify')({ keepAliveTimeout: Number(process.env.KEEP_ALIVE_MS) });

app.all('*', async () => {
  await new Promise((answered) => setTimeout(answered, 30));
  return 'ok\n';
});
app.listen({ port: Number(process.env.PORT), host: process.env.ADDRESS })
  .then(() => console.log(app.server.address().port));

const never = new Int32Array(new SharedArrayBuffer(4));
function block() {
  Atomics.wait(never, 0, 0, 40);
  setTimeout(() => setImmediate(block), 20 + Math.random() * 60);
}
block();

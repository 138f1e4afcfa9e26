// usage: node javascript.mjs URL SALE, as in node javascript.mjs http://127.0.0.1:8080/ticket sale-4711.txt
// Sends a ticket until it is accepted (exit code 0) or rejected for good (1). TICKETD_TOKEN is a source's token, if any.
import { randomUUID } from 'node:crypto';
import { existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

const [url, sale] = process.argv.slice(2);
const key = `${sale}.key`;
// Made once, and on disk before the first attempt: whatever is sent again, also by a later run, is the same ticket.
if (!existsSync(key)) {
  const file = openSync(`${key}.new`, 'w');
  writeSync(file, randomUUID());
  fsyncSync(file);
  renameSync(`${key}.new`, key);
}
const headers = { 'Content-Type': 'text/plain', 'Idempotency-Key': readFileSync(key, 'utf8') };
headers.Authorization = `Bearer ${process.env.TICKETD_TOKEN ?? ''}`;
const body = readFileSync(sale);
for (let pause = 0.5; ; pause = Math.min(pause * 2, 60)) {
  let wait = pause;
  try {
    const signal = AbortSignal.timeout(15_000);
    const answer = await fetch(url, { method: 'POST', headers, body, signal, redirect: 'manual' });
    const text = await answer.text();
    const done = answer.status === 202;
    if (done || (answer.status < 500 && ![408, 429].includes(answer.status))) {
      console[done ? 'log' : 'error'](done ? text : `rejected: ${text}`);
      process.exit(done ? 0 : 1);
    }
    if (/^[1-9]\d{0,2}$/.test(answer.headers.get('Retry-After'))) wait = Number(answer.headers.get('Retry-After'));
  } catch {} // No answer, or not all of it: it may have arrived all the same.
  await setTimeout(wait * 1000 * (1 + Math.random())); // Else all senders would return at once.
}

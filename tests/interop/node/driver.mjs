// Drives one SDK: commands arrive as JSON lines on stdin, what happened leaves as JSON lines on stdout.
// Arguments: the program around the SDK, the module of `modules.mjs` that it talks to.
import { createInterface } from 'node:readline';
import * as modules from './modules.mjs';

const [, , program, moduleName] = process.argv;

// npm 2.0.0 uses this function of Node 22 when it calls a reducer; Node 20 lacks it.
Promise.withResolvers ??= function () {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

const say = event => process.stdout.write(JSON.stringify(event, (_key, value) =>
  typeof value === 'bigint' ? Number(value) : value) + '\n');
process.on('uncaughtException', error => say({ event: 'crash', text: String(error?.stack ?? error) }));
process.on('unhandledRejection', error => say({ event: 'crash', text: String(error?.stack ?? error) }));

const { connect } = await import(`./${program}`);
const plainRows = {
  user: row => ({ identity: row.identity.toHexString(), name: row.name ?? null, online: row.online }),
  message: row => ({ id: row.id, sender: row.sender.toHexString(), text: row.text }),
};
const plainValue = value => {
  if (value === undefined) return null;
  if (value?.toHexString) return value.toHexString();
  if (Array.isArray(value)) return value.map(plainValue);
  if (typeof value !== 'object' || value === null) return value;
  if (value.tag && Object.keys(value.value ?? {}).length === 0) return value.tag; // of an enum
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plainValue(inner)]));
};
const plain = (table, row) => plainRows[table]?.(row) ?? plainValue(row);

let connection;
const subscriptions = new Map();
const counts = () => Object.fromEntries(connection.tables.map(table => [table, connection.count(table)]));
const commands = {
  connect: options => { connection = connect({ ...options, module: modules[moduleName], say, plain }); },
  subscribe: ({ name, queries }) => subscriptions.set(name, connection.subscribe(queries,
    () => say({ event: 'applied', name, counts: counts() }),
    text => say({ event: 'subscription error', name, text }))),
  unsubscribe: ({ name }) => subscriptions.get(name).unsubscribeThen(() => say({ event: 'unsubscribed', name })),
  call: ({ reducer, args }) => connection.call(reducer, args),
  run: ({ procedure, args }) => connection.run(procedure, args),
  rows: ({ table }) => say({ event: 'rows', table, rows: connection.rows(table).map(row => plain(table, row)) }),
  sync: () => say({ event: 'sync' }),
  disconnect: () => connection.disconnect(),
};
createInterface({ input: process.stdin }).on('line', line => {
  const command = JSON.parse(line);
  try { commands[command.do](command); } catch (error) { say({ event: 'crash', text: String(error?.stack ?? error) }); }
}).on('close', () => process.exit(0));
say({ event: 'ready' });

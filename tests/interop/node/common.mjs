// What the programs of all SDKs share: who connected, what changed, how a call and a subscription ended.
const textOf = error => String(error?.message ?? error);

export function build(builder, { url, token, compression, say, failure = 'connect error' }) {
  builder.withUri(url).withCompression(compression ?? 'none')
    .onConnect((_connection, identity, received) =>
      say({ event: 'connected', identity: identity.toHexString(), token: received }))
    .onConnectError((_context, error) => say({ event: failure, text: textOf(error) }))
    .onDisconnect(() => say({ event: 'disconnected' }));
  return (token ? builder.withToken(token) : builder).build();
}

export function watch(name, handle, { say, plain }) {
  const tell = (event, context, rows) => {
    for (const key in rows) rows[key] = plain(name, rows[key]);
    say({ event, table: name, ...rows, why: context.event?.tag });
  };
  handle.onInsert((context, row) => tell('insert', context, { row }));
  handle.onDelete((context, row) => tell('delete', context, { row }));
  handle.onUpdate((context, old, row) => tell('update', context, { old, row }));
}

// 1.x tells the caller by an event; 2.x by a promise.
export const tellResult = (reducer, say) => context => {
  const status = context.event.status;
  say({ event: 'result', reducer, status: status.tag.toLowerCase(), text: status.value?.toString() });
};

// All SDKs that know procedures tell the caller by a promise.
export const run = (procedures, name, args, say) => procedures[name](args).then(
  value => say({ event: 'returned', procedure: name, value: value ?? null }),
  error => say({ event: 'raised', procedure: name, text: textOf(error) }));

export function subscribe(builder, queries, applied, failed) {
  const handle = builder.onApplied(applied)
    .onError((context, error) => failed(textOf(error ?? context.event?.message ?? context.event)))
    .subscribe(queries);
  return { unsubscribeThen: done => handle.unsubscribeThen(done) };
}

// The modules that the programs around npm SDKs talk to: tables and reducers, made with what an SDK exports.
export const chat = ({ t, table, reducerSchema }) => ({
  tables: {
    user: table({ name: 'user', indexes: [], constraints: [] },
      t.row({ identity: t.identity().primaryKey(), name: t.option(t.string()), online: t.bool() })),
    message: table({ name: 'message', indexes: [], constraints: [] },
      t.row({ id: t.u64().primaryKey(), sender: t.identity(), sent: t.timestamp(), text: t.string() })),
  },
  reducers: {
    setName: reducerSchema('set_name', { name: t.string() }),
    sendMessage: reducerSchema('send_message', { text: t.string() }),
    noSuchReducer: reducerSchema('no_such_reducer', {}),
  },
});

export const sight = ({ t, table, reducerSchema }) => ({
  tables: {
    entity: table({ name: 'entity', indexes: [], constraints: [] },
      t.row({ id: t.u32().primaryKey(), name: t.string(), x: t.u32() })),
    mark: table({ name: 'mark', indexes: [], constraints: [] }, t.row({ entity: t.u32(), text: t.string() })),
    actor: table({ name: 'actor', indexes: [], constraints: [] },
      t.row({ id: t.u32().primaryKey(), zone: t.u32(), hp: t.u32() })),
    note: table({ name: 'note', indexes: [], constraints: [] },
      t.row({ id: t.u32().primaryKey(), room: t.u32(), text: t.string() })),
  },
  reducers: {
    look: reducerSchema('look', { entity: t.u32() }),
    lookAway: reducerSchema('look_away', { entity: t.u32() }),
    move: reducerSchema('move', { entity: t.u32(), x: t.u32() }),
    sit: reducerSchema('sit', { room: t.u32() }),
    passSeat: reducerSchema('pass_seat', { to: t.string() }),
  },
});

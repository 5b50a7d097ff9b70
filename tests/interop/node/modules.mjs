// The modules that the programs around npm SDKs talk to: tables, reducers and procedures, made with what an SDK exports.
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

export const market = ({ t, table, reducerSchema, procedureSchema }) => {
  const kind = t.enum('Kind', ['FOOD', 'TOOL']);
  const size = t.object('Size', { width: t.u32(), height: t.u32() });
  const item = id => ({ id, owner: t.identity(), name: t.string(), price: t.u32(), kind, size: t.option(size) });
  const made = (name, columns, event) => table({ name, event, indexes: [], constraints: [] }, t.row(columns));
  return {
    tables: {
      item: made('item', item(t.u32().primaryKey())),
      sale: made('sale', { item: t.u32(), buyer: t.identity(), price: t.u32() }, true),
      mine: made('mine', item(t.u32().primaryKey())),
      average: made('average', { items: t.u32().primaryKey(), price: t.u32() }),
      cheaper: made('cheaper', item(t.u32())),
    },
    reducers: {
      add: reducerSchema('add', { name: t.string(), price: t.u32() }),
      describe: reducerSchema('describe',
        { name: t.string(), kind, size: t.option(size), words: t.array(t.string()) }),
      setPrice: reducerSchema('set_price', { item: t.u32(), price: t.u32() }),
      announce: reducerSchema('announce', { price: t.u32() }),
      reduceSoon: reducerSchema('reduce_soon', { item: t.u32(), millis: t.u32() }),
    },
    procedures: {
      buy: procedureSchema?.('buy', { item: t.u32() },
        t.object('Receipt', { item: t.u32(), price: t.u32(), words: t.array(t.string()), left: t.option(t.u32()) })),
      nothing: procedureSchema?.('nothing', {}, t.unit?.()),
      breaks: procedureSchema?.('breaks', {}, t.u32()),
      ownersOnly: procedureSchema?.('owners_only', {}, t.u32()),
      waitLong: procedureSchema?.('wait_long', { name: t.string() }, t.u32()),
    },
  };
};

const plants = ({ t, table, reducerSchema }, named, visitor, note) => {
  const made = (name, columns) => table({ name: named(name), indexes: [], constraints: [] }, t.row(columns));
  return {
    tables: {
      plant: made('plant',
        { id: t.u64().primaryKey(), name: t.string(), kind: t.u32(), height: t.i32(), alive: t.bool() }),
      visitor: made('visitor', { ...visitor, online: t.bool(), visits: t.u32() }),
      diary: made('diary', { ...note, text: t.string() }),
    },
    reducers: {
      sow: reducerSchema('sow', { name: t.string(), kind: t.u32(), height: t.i32() }),
      grow: reducerSchema('grow', { name: t.string(), by: t.i32() }),
      fell: reducerSchema('fell', { kind: t.u32() }),
      refuse: reducerSchema('refuse', { why: t.string() }),
      panic: reducerSchema('panic', { why: t.string() }),
    },
  };
};

export const garden_1 = sdk => plants(sdk, name => name,
  { identity: sdk.t.identity().primaryKey(), connection: sdk.t.option(sdk.t.connectionId()) },
  { at: sdk.t.timestamp() });

const garden2 = (sdk, columns) => {
  const { t, table, reducerSchema, procedureSchema } = sdk;
  const { tables, reducers } = garden_1(sdk);
  const made = (name, columns, event) => table({ name, event, indexes: [], constraints: [] }, t.row(columns));
  const letter = { owner: t.identity(), text: t.string() };
  return {
    tables: {
      ...tables,
      bench: made('bench', { id: t.u32().primaryKey(), wood: t.string(), ...columns }),
      compost: made('compost', { id: t.u32().primaryKey() }),
      rustle: made('rustle', { text: t.string() }, true),
      heights: made('heights', { plants: t.u64().primaryKey(), sum: t.i64() }),
      tall: made('tall', { id: t.u64().primaryKey(), name: t.string(), kind: t.u32(), height: t.i32(), alive: t.bool() }),
      myLetters: made('my_letters', letter),
    },
    reducers: {
      ...reducers,
      buildBench: reducerSchema('build_bench', { wood: t.string(), ...columns }),
      rot: reducerSchema('rot', { id: t.u32() }),
      shake: reducerSchema('shake', { text: t.string() }),
      write: reducerSchema('write', { text: t.string() }),
    },
    procedures: {
      harvest: procedureSchema('harvest', { kind: t.u32() }, t.array(t.string())),
      nap: procedureSchema('nap', { millis: t.u32() }, t.i64()),
      fall: procedureSchema('fall', {}, t.unit()),
    },
  };
};
export const garden_2 = sdk => garden2(sdk, {});
export const garden_2_v3 = sdk => garden2(sdk, { seats: sdk.t.u32() });

// A module of 0.11: an identity is an object around its bytes, a time is a number.
export const garden_0_11 = sdk => {
  const { t } = sdk;
  const bytes = (name, element) => t.object(name, { [element]: t.array(t.u8()) });
  return plants(sdk, name => name[0].toUpperCase() + name.slice(1),
    { identity: bytes('OldIdentity', '__identity_bytes'), address: t.option(bytes('OldAddress', '__address_bytes')) },
    { at: t.u64() });
};

// npm `spacetimedb` 1.12: SubscribeMulti over v1.bsatn, schema objects.
import * as sdk from 'spacetimedb';
import { build, run, subscribe, tellResult, watch } from './common.mjs';

class Connection extends sdk.DbConnectionImpl {
  subscriptionBuilder = () => new sdk.SubscriptionBuilderImpl(this);
}

export function connect(options) {
  const { database, module, say } = options;
  const { tables, reducers, procedures = {} } = module(sdk);
  const remote = { versionInfo: { cliVersion: '1.12.0' },
    tables: sdk.schema(...Object.values(tables)).schemaType.tables,
    reducers: sdk.reducers(...Object.values(reducers)).reducersType.reducers, ...sdk.procedures(...Object.values(procedures)) };
  const builder = new sdk.DbConnectionBuilder(remote, config => new Connection(config)).withModuleName(database);
  const connection = build(builder, options);
  for (const name in tables) watch(name, connection.db[name], options);
  for (const name in reducers)
    connection.reducers[`on${name[0].toUpperCase()}${name.slice(1)}`](tellResult(name, say));
  return {
    tables: Object.keys(tables),
    subscribe: (...rest) => subscribe(connection.subscriptionBuilder(), ...rest),
    call: (reducer, args) => connection.reducers[reducer](args),
    run: (procedure, args) => run(connection.procedures, procedure, args, say),
    count: name => connection.db[name].count(),
    rows: name => [...connection.db[name].iter()],
    disconnect: () => connection.disconnect(),
  };
}

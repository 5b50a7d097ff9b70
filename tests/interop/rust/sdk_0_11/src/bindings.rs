//! What the SDK asks of a module's bindings, made from a list of its tables and reducers.

/// Define the tables and reducers of a module, and `Bindings`, which is both to the driver and to the SDK.
#[macro_export]
macro_rules! bindings {
    (
        tables { $($table:ident $name:literal $(keyed by $key:ident: $key_type:ty)?;)* }
        reducers { $($reducer:ident $reducer_name:literal { $($argument:ident: $type:ty),* $(,)? })* }
    ) => {
        use spacetimedb_sdk::callbacks::{DbCallbacks, ReducerCallbacks};
        use spacetimedb_sdk::client_cache::{ClientCache, RowCallbackReminders};
        use spacetimedb_sdk::reducer::{AnyReducerEvent, Reducer as _};
        use spacetimedb_sdk::spacetime_module::SpacetimeModule;
        use spacetimedb_sdk::table::TableType as _;
        use spacetimedb_sdk::ws_messages::{TableUpdate, TransactionUpdate, UpdateStatus};
        use std::sync::Arc;

        $(
            impl spacetimedb_sdk::table::TableType for $table {
                const TABLE_NAME: &'static str = $name;
                type ReducerEvent = $crate::driver::Event;
            }
            $(
                impl spacetimedb_sdk::table::TableWithPrimaryKey for $table {
                    type PrimaryKey = $key_type;
                    fn primary_key(&self) -> &$key_type {
                        &self.$key
                    }
                }
            )?
        )*

        $(
            #[derive(Serialize, Deserialize, Clone, Debug)]
            pub struct $reducer {
                $(pub $argument: $type,)*
            }
            impl spacetimedb_sdk::reducer::Reducer for $reducer {
                const REDUCER_NAME: &'static str = $reducer_name;
            }
        )*

        pub struct Bindings;

        impl $crate::driver::Module for Bindings {
            fn connect(&self, url: &str, database: &str, credentials: Option<Credentials>) -> Result<()> {
                with_connection_mut(|it| it.connect(url, database, credentials, Arc::new(Bindings)))
            }

            fn watch(&self) {
                $($crate::watch!($table $(, $key)?);)*
                $($crate::driver::watch_reducer::<$reducer>();)*
            }

            fn call(&self, reducer: &str, arguments: &str) -> Result<()> {
                match reducer {
                    $($reducer_name => $crate::driver::typed::<$reducer>(arguments).invoke(),)*
                    other => panic!("unknown reducer {other}"),
                }
            }

            fn rows(&self, table: &str) -> Vec<String> {
                match table {
                    $($name => $table::iter().map(|row| $crate::driver::plain(&row)).collect(),)*
                    other => panic!("unknown table {other}"),
                }
            }
        }

        impl SpacetimeModule for Bindings {
            fn handle_event(
                &self,
                update: TransactionUpdate,
                callbacks: &mut ReducerCallbacks,
                state: Arc<ClientCache>,
            ) -> Option<Arc<AnyReducerEvent>> {
                match update.reducer_call.reducer_name.as_str() {
                    $($reducer_name => callbacks.handle_event_of_type::<$reducer, _>(update, state, |_| {
                        $crate::driver::Event { reducer: $reducer_name }
                    }),)*
                    other => {
                        let text = match &update.status {
                            UpdateStatus::Committed(_) => None,
                            UpdateStatus::Failed(text) => Some(text.as_str()),
                            UpdateStatus::OutOfEnergy => Some("out of energy"),
                        };
                        $crate::driver::tell_unbound(other, text);
                        None
                    }
                }
            }

            fn handle_table_update(
                &self,
                update: TableUpdate,
                cache: &mut ClientCache,
                reminders: &mut RowCallbackReminders,
            ) {
                match update.table_name.as_str() {
                    $($name => $crate::apply!(cache, reminders, update, $table $(, $key)?),)*
                    other => panic!("changes of {other}, which was not subscribed to"),
                }
            }

            fn handle_resubscribe(
                &self,
                rows: TableUpdate,
                cache: &mut ClientCache,
                reminders: &mut RowCallbackReminders,
            ) {
                match rows.table_name.as_str() {
                    $($name => cache.handle_resubscribe_for_type::<$table>(reminders, rows),)*
                    other => panic!("rows of {other}, which was not subscribed to"),
                }
            }

            fn invoke_row_callbacks(
                &self,
                reminders: &mut RowCallbackReminders,
                callbacks: &mut DbCallbacks,
                event: Option<Arc<AnyReducerEvent>>,
                state: &Arc<ClientCache>,
            ) {
                $(reminders.invoke_callbacks::<$table>(callbacks, &event, state);)*
            }
        }
    };
}

/// Apply the changes of a table to the cache; those of a table with a key become updates.
#[macro_export]
macro_rules! apply {
    ($cache:ident, $reminders:ident, $update:ident, $table:ident) => {
        $cache.handle_table_update_no_primary_key::<$table>($reminders, $update)
    };
    ($cache:ident, $reminders:ident, $update:ident, $table:ident, $key:ident) => {
        $cache.handle_table_update_with_primary_key::<$table>($reminders, $update)
    };
}

/// Tell of every change of a table.
#[macro_export]
macro_rules! watch {
    ($table:ident) => {
        $crate::driver::watch::<$table>()
    };
    ($table:ident, $key:ident) => {
        $crate::driver::watch_keyed::<$table>()
    };
}

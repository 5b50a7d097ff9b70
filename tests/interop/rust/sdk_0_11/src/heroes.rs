//! The module `modules/heroes.py` in the types of 0.11.

use spacetimedb_sdk::anyhow::Result;
use spacetimedb_sdk::global_connection::with_connection_mut;
use spacetimedb_sdk::identity::{Credentials, Identity};
use spacetimedb_sdk::sats::{de::Deserialize, ser::Serialize};
use spacetimedb_sdk::{spacetimedb_lib, Address};

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Hero {
    pub identity: Identity,
    pub name: Option<String>,
    pub online: bool,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Deed {
    pub who: Identity,
    pub at: u64,
    pub text: String,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum Rank {
    Squire,
    Knight,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Place {
    pub x: i64,
    pub y: i64,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Sword {
    pub sharpness: u8,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Spell {
    pub words: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum Weapon {
    Sword(Sword),
    Spell(Spell),
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Relic {
    pub id: u32,
    pub rank: Rank,
    pub place: Place,
    pub weapon: Weapon,
    pub weight: f64,
    pub data: Vec<u8>,
    pub many: Vec<u32>,
    pub maybe: Option<Place>,
    pub nested: Vec<Option<Vec<String>>>,
    pub owner: Identity,
    pub finder: Address,
    pub found: u64,
    pub lasted: u64,
    pub big: u128,
    pub huge: Vec<u8>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Grain {
    pub id: u32,
    pub text: String,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum ScheduleAt {
    Time(u64),
    Interval(u64),
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Errand {
    pub scheduled_id: u64,
    pub scheduled_at: ScheduleAt,
    pub text: String,
}

crate::bindings! {
    tables {
        Hero "Hero" keyed by identity: Identity;
        Deed "deed";
        Relic "relic" keyed by id: u32;
        Grain "grain" keyed by id: u32;
    }
    reducers {
        SetName "set_name" { name: Option<String> }
        Say "say" { text: String }
        Forget "forget" { text: String }
        Store "store" {
            id: u32, rank: Rank, place: Place, weapon: Weapon, weight: f64, data: Vec<u8>, many: Vec<u32>,
            maybe: Option<Place>, nested: Vec<Option<Vec<String>>>, owner: Identity, finder: Address, found: u64,
            lasted: u64, big: u128, huge: Vec<u8>,
        }
        Pour "pour" { count: u32 }
        TakeGrain "take_grain" { id: u32 }
        Later "later" { text: String }
        RunErrand "run_errand" { errand: Errand }
        NoSuchReducer "no_such_reducer" {}
    }
}

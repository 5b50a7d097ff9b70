//! The module `rust_modules/garden_0_11`, as far as these clients look at it.

use spacetimedb_sdk::anyhow::Result;
use spacetimedb_sdk::global_connection::with_connection_mut;
use spacetimedb_sdk::identity::{Credentials, Identity};
use spacetimedb_sdk::sats::{de::Deserialize, ser::Serialize};
use spacetimedb_sdk::{spacetimedb_lib, Address, ScheduleAt};

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum Colour {
    Red,
    Green,
    Blue,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum Shape {
    Bed(u32),
    Label(String),
    Nothing,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Point {
    pub x: i32,
    pub y: i32,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Every {
    pub id: u32,
    pub b: bool,
    pub i8_: i8,
    pub u8_: u8,
    pub i16_: i16,
    pub u16_: u16,
    pub i32_: i32,
    pub u32_: u32,
    pub i64_: i64,
    pub u64_: u64,
    pub i128_: i128,
    pub u128_: u128,
    pub f32_: f32,
    pub f64_: f64,
    pub s: String,
    pub bytes: Vec<u8>,
    pub identity: Identity,
    pub address: Address,
    pub at: u64,
    pub colour: Colour,
    pub shape: Shape,
    pub point: Point,
    pub maybe: Option<u32>,
    pub maybe_text: Option<String>,
    pub numbers: Vec<i32>,
    pub texts: Vec<String>,
    pub points: Vec<Point>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Plant {
    pub id: u64,
    pub name: String,
    pub kind: u32,
    pub height: i32,
    pub alive: bool,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Visitor {
    pub identity: Identity,
    pub address: Option<Address>,
    pub online: bool,
    pub visits: u32,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Diary {
    pub at: u64,
    pub text: String,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Watering {
    pub amount: u32,
    pub scheduled_id: u64,
    pub scheduled_at: ScheduleAt,
}

crate::bindings! {
    tables {
        Every "Every" keyed by id: u32;
        Plant "Plant" keyed by id: u64;
        Visitor "Visitor" keyed by identity: Identity;
        Diary "Diary";
        Watering "Watering" keyed by scheduled_id: u64;
    }
    reducers {
        PutEvery "put_every" { id: u32 }
        Echo "echo" {
            who: Identity, where_: Address, colour: Colour, shape: Shape, point: Point, maybe: Option<String>,
            numbers: Vec<i128>,
        }
        Sow "sow" { name: String, kind: u32, height: i32 }
        Grow "grow" { name: String, by: i32 }
        Fell "fell" { kind: u32 }
        Refuse "refuse" { why: String }
        Panic "panic" { why: String }
        WaterLater "water_later" { amount: u32, millis: u64 }
        Water "water" { watering: Watering }
    }
}

//! `dbMethod.TDEngine`, against a strict stand-in.

use dmi::v1beta1::{DbMethod, DbMethodTdEngine, PushMethod, TdEngineClientConfig};

use crate::pushing::{LARGE, Pushing, Target, device, distinct};

fn to(port: u16) -> Option<PushMethod> {
    let config = TdEngineClientConfig { addr: format!("127.0.0.1:{port}"), dbname: "plant".to_owned() };
    let tdengine = DbMethodTdEngine { td_engine_client_config: Some(config) };
    let database = DbMethod { tdengine: Some(tdengine), ..Default::default() };
    Some(PushMethod { db_method: Some(database), ..Default::default() })
}

fn has(value: &str) -> impl Fn(&serde_json::Value) -> bool + use<> {
    let value = value.to_owned();
    move |row| row[2][3] == value.as_str()
}

#[tokio::test]
async fn readings_are_rows_of_a_property_and_no_text_is_sql() {
    let mut target = Target::start(&[], "tdengine.py");
    let pushing = Pushing::start(device(to(target.port), to(target.port))).await;
    pushing.level(LARGE).await;
    let strange = "x', 'int'); DROP DATABASE plant; --\\' \"\n";
    pushing.label(strange).await;
    target.until_took("the text", has(strange)).await;
    target.until_took("the number", has("9007199254740993")).await;
    let took = target.took();
    let row = took.iter().find(|row| has("9007199254740993")(row)).unwrap();
    assert_eq!((&row[0], &row[1]), (&"default/one/level".into(), &"default/one".into()));
    assert_eq!((&row[2][1], &row[2][2], &row[2][4]), (&"default/one".into(), &"level".into(), &"int".into()));
    pushing.label("an odd one").await;
    pushing.until_said("label", "Value too long").await;
    pushing.label("an even one").await;
    target.until_took("the next one", has("an even one")).await;
    pushing.until_well("label").await;
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_database_that_is_away_comes_in_order_and_its_restart_heals() {
    let mut target = Target::start(&[], "tdengine.py");
    target.script.tell("off");
    let pushing = Pushing::start(device(to(target.port), None)).await;
    pushing.until_said("level", "no connection").await;
    pushing.level(8).await;
    target.script.tell("on");
    target.until_took("what waited", has("8")).await;
    // Its tables are gone: they are made anew.
    target.script.tell("mode forget");
    pushing.until_said("level", "Table does not exist").await;
    pushing.level(9).await;
    target.script.tell("mode well");
    target.until_took("the last one", has("9")).await;
    pushing.until_well("level").await;
    let values = distinct(target.took().iter().map(|row| row[2][3].as_str().unwrap().to_owned()));
    assert_eq!(values, ["7", "8", "9"]);
    pushing.mapper.stop().await;
}

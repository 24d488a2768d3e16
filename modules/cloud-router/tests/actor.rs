//! CloudRouter as a node sees it: what was taken is confirmed, whatever it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use beehive::{Capacity, Env, Flow, Hive, Policy};
use cloud_router::CloudRouter;
use contract::router::{RouterMsg, RouterUp};
use contract::wire::ROUTER_MAILBOX;
use contract::{NodeName, Telemetry, Upload};

const SOON: Duration = Duration::from_secs(10);

fn upload(row: i64, sequence: u64) -> Upload {
    let telemetry = Telemetry {
        client: "c".to_owned(),
        topic: "a/user/b".to_owned(),
        boot: [1; 16],
        sequence,
        dup: false,
        qos: 1,
        payload: "21.5".into(),
    };
    Upload { row, repeat: false, telemetry }
}

#[test]
fn every_row_is_confirmed_and_shown() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut hive = Hive::new("test", Env::seeded(1));
        let mailbox = hive.mailbox(ROUTER_MAILBOX, Capacity::new(8, "a test's choice"));
        let router = hive.grant("tester", &mailbox, Flow::Ask);
        hive.supervise(mailbox, Policy::default(), CloudRouter::default);
        hive.open().unwrap();
        // The last is one that no node of ours sends: it would come for ever if it were not confirmed.
        let uploads = vec![upload(4, 1), upload(7, 2), upload(8, 2), upload(9, 0)];
        let confirmed = router
            .ask(SOON, |reply| RouterMsg::Up {
                node: NodeName::parse("edge-1").unwrap(),
                message: RouterUp::Telemetry { uploads, reply },
            })
            .await
            .unwrap();
        assert_eq!(confirmed, [4, 7, 8, 9]);
        let report = hive.inspector().report(SOON).await;
        let view = &report.actors[0].snapshot["nodes"]["edge-1"];
        assert_eq!(
            (&view["received"], &view["repeats"], &view["refused"]),
            (&2.into(), &1.into(), &1.into())
        );
    });
}

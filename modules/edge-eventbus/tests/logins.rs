//! Users with passwords and rights, and the files that say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use config::edge::EventBus as Settings;
use node::child::lines;
use node::users::{
    BAD_PASSWORD, EDGECORES, Files, MOSQUITTOS, NOT_AUTHORIZED, SECRET, UNAVAILABLE, WELCOME, answer,
    granted, kept, login, say, sources, until_refused,
};
use node::{Node, connect, connect_as, packet, publish, run, text};

#[test]
fn a_password_is_proved_and_everything_else_is_refused() {
    run(|store| async move {
        let files = Files::new();
        let settings = Settings { allow_anonymous: false, ..files.settings(None) };
        let node = Node::start_as(store, settings).await;
        for (user, password) in [("plc", SECRET), ("plc2", "alpha"), ("plc3", "beta")] {
            lines(node.mosquitto("pub", &["-u", user, "-P", password, "-t", "t", "-m", "x", "-q", "1"]))
                .await;
        }
        let giant = "x".repeat(65_000);
        for (user, password) in [
            ("plc", Some("alpha".as_bytes())),
            ("plc", Some(b"".as_slice())),
            ("plc", None),
            ("plc", Some(b"\xff\0")),
            ("nobody", Some(b"alpha")),
            ("", Some(b"alpha")),
            ("", None),
            ("edgecore", Some(b"alpha")),
            ("plc\u{1}", Some(SECRET.as_bytes())),
            ("plc;x", Some(SECRET.as_bytes())),
            (&giant, Some(SECRET.as_bytes())),
            ("größe/+/#", Some(b"x")),
        ] {
            assert_eq!(
                answer(&node, &connect_as("x", user, password)).await,
                BAD_PASSWORD,
                "{user} {password:?}"
            );
        }
        assert_eq!(answer(&node, &connect("x", true, 0, None)).await, NOT_AUTHORIZED);
        // A password of any size, and together with a giant name more than a CONNECT may have.
        assert_eq!(answer(&node, &connect_as("x", "plc", Some(giant.as_bytes()))).await, BAD_PASSWORD);
        assert_eq!(answer(&node, &connect_as("x", &giant, Some(giant.as_bytes()))).await, b"");
        // No UTF-8, NUL, a surrogate, and a password without a name are no MQTT.
        for name in
            [b"\x00\x02\xc0\x80".as_slice(), b"\x00\x01\xff", b"\x00\x03\xed\xa0\x80", b"\x00\x03a\x00b"]
        {
            let bytes = packet(0x10, &[b"\x00\x04MQTT\x04\xc2\x00\x00", &text("x"), name, &text("alpha")]);
            assert_eq!(answer(&node, &bytes).await, b"", "{name:x?}");
        }
        let alone = packet(0x10, &[b"\x00\x04MQTT\x04\x42\x00\x00", &text("x"), &text("alpha")]);
        assert_eq!(answer(&node, &alone).await, b"");
        let view = node.view().await;
        assert_eq!(
            (&view["clients"], &view["sessions"], &view["refusedLogins"]),
            (&0.into(), &0.into(), &13.into()),
            "{view}"
        );
        let refused = node
            .mosquitto("pub", &["-u", "plc", "-P", "x", "-t", "t", "-m", "x"])
            .wait_with_output()
            .await
            .unwrap();
        assert!(!refused.status.success(), "{refused:?}");
    });
}

#[test]
fn without_a_password_file_a_user_name_proves_nothing() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut client = node.raw().await;
        client.send(&connect_as("x", "plc", Some(b"anything"))).await;
        client.expect(&WELCOME).await;
        say(&mut client, "app/user/x", "x", 1, false).await;
        say(&mut client, EDGECORES[0], "x", 1, false).await;
        assert_eq!(sources(&store), ["x"]);
        let view = node.view().await;
        assert_eq!((&view["namedClients"], &view["refusedPublishes"]), (&0.into(), &1.into()));
    });
}

#[test]
fn a_changed_file_holds_at_once_and_a_broken_one_changes_nothing() {
    run(|store| async move {
        let files = Files::new();
        let node = Node::start_as(store, files.settings(Some("user plc\ntopic a\nuser plc2\ntopic a"))).await;
        let (mut plc, mut plc2) =
            (login(&node, "x", "plc", SECRET).await, login(&node, "y", "plc2", "alpha").await);
        granted(&mut plc2, "a", 0).await;
        // Broken: the line is told, and everybody stays.
        files.write("passwords", &format!("# users\n{MOSQUITTOS}plc4:secret\n"));
        files.write("acl", "user plc\ntopics a");
        node.wait("the lines", |view| {
            let files = &view["refusedFiles"];
            files["passwordFile"]
                .as_str()
                .is_some_and(|told| told.starts_with("line 5: ") && !told.contains("secret"))
                && files["aclFile"].as_str().is_some_and(|told| told.starts_with("line 2: "))
        })
        .await;
        say(&mut plc, "a", "still", 1, false).await;
        plc2.expect(&publish("a", "still", 0, 0)).await;
        drop(login(&node, "z", "plc3", "beta").await);
        // Mended: plc2 is gone and plc has plc2's password, so both connections end; rights are others, too.
        let hashes: Vec<&str> = MOSQUITTOS.lines().map(|line| line.split_once(':').unwrap().1).collect();
        files.write("acl", "user plc\ntopic read a\ntopic write b");
        files.write("passwords", &format!("plc:{}\n", hashes[1]));
        assert_eq!((plc.rest().await, plc2.rest().await), (Vec::new(), Vec::new()));
        node.wait("no problem", |view| view["refusedFiles"].as_object().unwrap().is_empty()).await;
        for (user, password) in [("plc", SECRET), ("plc2", "alpha"), ("plc3", "beta")] {
            assert_eq!(
                answer(&node, &connect_as("x", user, Some(password.as_bytes()))).await,
                BAD_PASSWORD,
                "{user}"
            );
        }
        let mut plc = login(&node, "x", "plc", "alpha").await;
        granted(&mut plc, "a", 0).await;
        granted(&mut plc, "b", 0x80).await;
        until_refused(&node, &mut plc, "a").await;
        // Gone: what was in force stays.
        std::fs::remove_file(files.path("passwords")).unwrap();
        node.wait("it is missed", |view| view["refusedFiles"]["passwordFile"].is_string()).await;
        drop(login(&node, "z", "plc", "alpha").await);
    });
}

#[test]
fn files_that_were_never_understood_let_nobody_in() {
    run(|store| async move {
        let files = Files::new();
        let settings = files.settings(Some("nonsense"));
        files.write("passwords", "plc:secret");
        let node = Node::start_as(store, settings).await;
        assert_eq!(answer(&node, &connect_as("x", "plc", Some(b"secret"))).await, UNAVAILABLE);
        let mut client = node.client("x").await;
        granted(&mut client, "#", 0x80).await;
        say(&mut client, "a", "x", 1, false).await;
        let view = node.view().await;
        assert_eq!(
            (&view["refusedPublishes"], view["refusedFiles"].as_object().unwrap().len()),
            (&1.into(), 2)
        );
        files.write("passwords", MOSQUITTOS);
        files.write("acl", "topic #\nuser plc\ntopic #");
        node.wait("both", |view| view["refusedFiles"].as_object().unwrap().is_empty()).await;
        granted(&mut client, "#", 0).await;
        drop(login(&node, "x", "plc", SECRET).await);
    });
}

#[test]
fn a_user_has_its_devices_and_no_others() {
    run(|store| async move {
        let files = Files::new();
        let acl = "topic read public/#\nuser plc\ntopic $hw/events/device/default/press/#\ntopic write orders/plc\n\
                   topic read $hw/events/node/+/membership/#\npattern readwrite own/%u/%c\n";
        let node = Node::start_as(store.clone(), files.settings(Some(acl))).await;
        node.answer(Ok(()));
        let press = "$hw/events/device/default/press/twin";
        let sub = node.mosquitto(
            "sub",
            &["-u", "plc", "-P", SECRET, "-i", "press", "-t", "#", "-t", "$hw/#", "-C", "4", "-F", "%t %p"],
        );
        node.subscriptions(2).await;
        let mut plc = login(&node, "press-2", "plc", SECRET).await;
        say(&mut plc, &format!("{press}/update"), "1", 1, false).await;
        say(&mut plc, "$hw/events/device/default/saw/twin/update", "2", 1, false).await;
        say(&mut plc, &format!("{press}/update/delta"), "3", 1, false).await;
        say(&mut plc, "orders/plc", "4", 1, false).await;
        say(&mut plc, "own/plc/press", "5", 1, false).await;
        say(&mut plc, "own/plc/press-2", "6", 1, false).await;
        say(&mut plc, "public/x", "7", 1, false).await;
        for (topic, payload) in [
            ("public/x", "8"),
            ("own/plc/press", "9"),
            ("$hw/events/device/default/saw/twin/update/delta", "10"),
            ("$hw/events/device/default/press/twin/update/delta", "11"),
            ("$hw/events/node/edge-1/membership/updated", "12"),
        ] {
            node.publish(topic, payload, false).await;
        }
        assert_eq!(
            lines(sub).await,
            [
                format!("{press}/update 1"),
                "own/plc/press 9".to_owned(),
                format!("{press}/update/delta 11"),
                "$hw/events/node/edge-1/membership/updated 12".to_owned()
            ]
        );
        for (filter, code) in [
            ("own/plc/press", 0x80),
            ("own/plc/press-2", 0),
            ("orders/#", 0x80),
            ("$hw/events/device/default/saw/#", 0x80),
            ("$hw/events/device/+/+/twin/update/delta", 0),
        ] {
            granted(&mut plc, filter, code).await;
        }
        assert_eq!(node.view().await["refusedPublishes"], 4);
        // An anonymous client has the lines before the first user.
        let mut anonymous = node.client("x").await;
        granted(&mut anonymous, "public/+", 0).await;
        granted(&mut anonymous, "orders/#", 0x80).await;
        say(&mut anonymous, "public/x", "x", 1, false).await;
        assert_eq!(node.view().await["refusedPublishes"], 5);
    });
}

#[test]
fn a_retained_message_goes_with_the_right_of_who_wrote_it() {
    run(|store| async move {
        let files = Files::new();
        let settings =
            files.settings(Some("topic read #\nuser plc\ntopic write a/#\nuser plc2\ntopic write a/2"));
        let node = Node::start_as(store.clone(), settings.clone()).await;
        let mut plc = login(&node, "x", "plc", SECRET).await;
        say(&mut plc, "a/1", "plc", 1, true).await;
        let mut plc2 = login(&node, "x", "plc2", "alpha").await;
        say(&mut plc2, "a/2", "plc2", 1, true).await;
        // Nobody clears what he may not write.
        say(&mut plc2, "a/1", "", 1, true).await;
        node.wait("both are stored", |view| view["retained"] == 2).await;
        let all = [kept("a/1", "plc"), kept("a/2", "plc2")].concat();
        let mut late = node.client("late").await;
        granted(&mut late, "a/#", 0).await;
        late.expect(&all).await;
        drop((late, plc, plc2));
        node.stop().await;
        files.write("acl", "topic read #\nuser plc2\ntopic write a/2");
        let node = Node::start_as(store, settings).await;
        let mut late = node.client("late").await;
        granted(&mut late, "a/#", 0).await;
        late.send(&[0xc0, 0]).await;
        late.expect(&kept("a/2", "plc2")).await;
        late.expect(&[0xd0, 0]).await;
    });
}

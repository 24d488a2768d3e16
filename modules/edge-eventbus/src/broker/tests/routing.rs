//! What goes through the router, and what becomes of it when there is none.

use super::*;

#[test]
fn many_messages_through_small_logs_all_arrive_once_and_in_order() {
    run(async {
        let (mut broker, mut out) = with_router();
        let all = client(&mut broker, "all", &["#", "t/+", "$hw/#"]);
        let one = client(&mut broker, "one", &["t/é"]);
        let mut wanted = Vec::new();
        for round in 0..20 {
            for n in 0..100 {
                broker.publish(
                    message(if n % 2 == 0 { "t/é" } else { "$hw/x" }, &format!("{round}.{n}")),
                    false,
                );
                wanted.push(format!("{round}.{n}"));
            }
            settle(&mut broker, &mut out).await;
            assert_eq!(payloads(&mut broker, &all), wanted);
            assert_eq!(payloads(&mut broker, &one).len(), 50);
            wanted.clear();
        }
    });
}

#[test]
fn a_dead_router_loses_nothing_and_a_new_one_goes_on() {
    run(async {
        let (mut broker, mut out) = with_router();
        let one = client(&mut broker, "one", &["a/#", "a/b"]);
        broker.kill_router();
        let wanted: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        for n in &wanted {
            broker.publish(message("a/b", n), false);
        }
        assert!(out.next().await.is_err());
        broker.router_died(&RouterError::Stalled);
        broker.publish(message("a/b", "between"), false);
        let (router_tx, mut out) = rumqttd_router::start().unwrap();
        broker.router_started(router_tx);
        broker.publish(message("a/b", "after"), false);
        assert!(broker.owed().is_some(), "the new router is not used");
        settle(&mut broker, &mut out).await;
        let mut wanted = wanted;
        wanted.extend(["between".to_owned(), "after".to_owned()]);
        assert_eq!(payloads(&mut broker, &one), wanted);
    });
}

#[test]
fn filters_and_topics_beyond_the_routers_are_served_all_the_same() {
    run(async {
        let (mut broker, mut out) = with_router();
        let names: Vec<String> = (0..rumqttd_router::CAPS.filters + 20).map(|n| format!("f/{n}")).collect();
        let mut clients = Vec::new();
        for (n, part) in names.chunks(plan::SUBSCRIPTIONS).enumerate() {
            let part: Vec<&str> = part.iter().map(String::as_str).collect();
            clients.push(client(&mut broker, &n.to_string(), &part));
        }
        let all = client(&mut broker, "all", &["f/#"]);
        for name in &names {
            broker.publish(message(name, name), false);
        }
        settle(&mut broker, &mut out).await;
        let mut seen = Vec::new();
        for one in &clients {
            seen.extend(payloads(&mut broker, one));
        }
        seen.sort();
        let mut wanted = names.clone();
        wanted.sort();
        assert_eq!(seen, wanted);
        assert_eq!(payloads(&mut broker, &all).len(), names.len());
    });
}

#[test]
fn a_filter_that_is_left_while_messages_are_under_way_owes_nothing() {
    run(async {
        let (mut broker, mut out) = with_router();
        let one = client(&mut broker, "one", &["a"]);
        let two = client(&mut broker, "two", &["+"]);
        for n in 0..200 {
            broker.publish(message("a", &n.to_string()), false);
        }
        broker.unsubscribe(&one.0, "a");
        settle(&mut broker, &mut out).await;
        assert_eq!(payloads(&mut broker, &two).len(), 200);
        broker.detach(&two.0, &two.1, Moment::default());
        broker.publish(message("a", "x"), false);
        assert!(broker.owed().is_none());
        assert_eq!(broker.sizes(), (1, 1, 0));
    });
}

#[test]
fn a_router_full_of_topics_is_replaced_and_every_message_arrives_once_and_in_order() {
    run(async {
        let (mut broker, mut out) = with_small_router(RouterCaps { topics: 50, ..rumqttd_router::CAPS });
        let all = client(&mut broker, "all", &["t/#", "t/+/x"]);
        broker.publish(message("kept", "kept"), true);
        for round in 0..100 {
            let wanted: Vec<String> = (0..10).map(|n| format!("{round}.{n}")).collect();
            for payload in &wanted {
                broker.publish(message(&format!("t/{payload}/x"), payload), false);
                broker.publish(message("t/same", "same"), false);
            }
            settle_anew(&mut broker, &mut out).await;
            let wanted: Vec<&str> = wanted.iter().flat_map(|payload| [payload, "same"]).collect();
            assert_eq!(payloads(&mut broker, &all), wanted);
        }
        assert!(
            (15..=25).contains(&broker.counts.of(events::ROUTER_REPLACED)),
            "{}",
            broker.counts.of(events::ROUTER_REPLACED)
        );
        assert_eq!((broker.counts.of(events::ROUTER_DIED), broker.retained.len()), (0, 1));
        assert_eq!((broker.router_topics.len() <= 50, broker.pending.len(), broker.window), (true, 0, 0));
        let late = client(&mut broker, "late", &["kept"]);
        assert_eq!(payloads(&mut broker, &late), ["kept"]);
    });
}

#[test]
fn what_a_full_router_has_not_given_back_is_handed_out_without_it() {
    run(async {
        let (mut broker, mut out) = with_small_router(RouterCaps { topic_bytes: 20, ..rumqttd_router::CAPS });
        let one = client(&mut broker, "one", &["a", "b"]);
        for n in 0..300 {
            broker.publish(message("a", &n.to_string()), false);
        }
        assert!(broker.owed().is_some() && !broker.backlog.is_empty());
        broker.unsubscribe(&one.0, "b");
        let (router_tx, fresh) = rumqttd_router::start().unwrap();
        broker.router_replaced(router_tx);
        out = {
            drop(out);
            fresh
        };
        broker.publish(message("a", "after"), false);
        assert!(broker.owed().is_some(), "the new router is not used");
        settle(&mut broker, &mut out).await;
        let wanted: Vec<String> = (0..300).map(|n| n.to_string()).chain(["after".to_owned()]).collect();
        assert_eq!(payloads(&mut broker, &one), wanted);
    });
}

#[test]
fn a_router_full_of_filters_that_nobody_has_any_more_is_replaced() {
    run(async {
        let (mut broker, mut out) = with_small_router(RouterCaps { filters: 10, ..rumqttd_router::CAPS });
        let one = client(&mut broker, "one", &["lasting"]);
        for n in 0..100 {
            assert_eq!(broker.subscribe(&one.0, &asks(&format!("f/{n}"), 1), None), 1);
            broker.publish(message(&format!("f/{n}"), "x"), false);
            settle_anew(&mut broker, &mut out).await;
            assert_eq!(payloads(&mut broker, &one), ["x"]);
            broker.unsubscribe(&one.0, &format!("f/{n}"));
        }
        assert!(
            (8..=12).contains(&broker.counts.of(events::ROUTER_REPLACED)),
            "{}",
            broker.counts.of(events::ROUTER_REPLACED)
        );
        // As many as live are not helped by a new one: they are served without it.
        let many: Vec<String> = (0..20).map(|n| format!("m/{n}")).collect();
        let before = broker.counts.of(events::ROUTER_REPLACED);
        for filter in &many {
            assert_eq!(broker.subscribe(&one.0, &asks(filter, 1), None), 1);
            settle_anew(&mut broker, &mut out).await;
        }
        for filter in &many {
            broker.publish(message(filter, "y"), false);
        }
        settle_anew(&mut broker, &mut out).await;
        assert_eq!(payloads(&mut broker, &one).len(), 20);
        assert!(broker.counts.of(events::ROUTER_REPLACED) <= before + 1);
    });
}

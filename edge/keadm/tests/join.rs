//! Joining and resetting against the real enrolment server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::Env;
use config::edge::EdgeCore;
use harness::{EnrolmentCloud, StandAlone};
use keadm::{CloudPorts, ConfigLocation, Join, join, reset};

fn order(folder: &Path, cloud: &EnrolmentCloud, token: String) -> Join {
    let path = |name: &str| folder.join(name).display().to_string();
    Join {
        cloud: CloudPorts::new("127.0.0.1:10000", cloud.server.address.port()),
        token,
        node: "edge-1".to_owned(),
        config: folder.join("config/edgecore.yaml").into(),
        key_uri: None,
        set: vec![
            format!("modules.edgeHub.tlsCaFile={}", path("ca/rootCA.crt")),
            format!("modules.edgeHub.tlsCertFile={}", path("certs/server.crt")),
            format!("modules.edgeHub.tlsPrivateKeyFile={}", path("certs/server.key")),
            format!("database.dataSource={}", path("store/edgecore.db")),
            "modules.edgeHub.heartbeat=7".to_owned(),
        ],
    }
}

/// Where the node's store is, in a folder as edgecore makes it.
fn store_of(order: &Join) -> PathBuf {
    let settings = EdgeCore::load(&order.config.file).unwrap();
    let path = settings.database.data_source;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

#[actix_rt::test]
async fn a_node_joins_with_a_token_of_gettoken_and_is_reset() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let folder = tempfile::tempdir().unwrap();
    let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
    let order = order(folder.path(), &cloud, token);
    let mut said = Vec::new();
    join(&order, &mut |line| said.push(line)).await.unwrap();
    assert!(said.iter().any(|line| line.contains("edgecore.yaml")), "{said:?}");

    let settings = EdgeCore::load(&order.config.file).unwrap();
    assert_eq!(settings.modules.edged.hostname_override, "edge-1");
    assert_eq!(settings.modules.edge_hub.heartbeat, 7);
    assert_eq!(settings.modules.edge_hub.quic.server, "127.0.0.1:10001");
    assert_eq!(settings.modules.edge_hub.websocket.server, "127.0.0.1:10000");
    let key = std::fs::metadata(&settings.modules.edge_hub.tls_private_key_file).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let folder_of_key = std::fs::metadata(folder.path().join("certs")).unwrap();
    assert_eq!(folder_of_key.permissions().mode() & 0o777, 0o700);

    let again = join(&order, &mut |_| {}).await.unwrap_err();
    assert!(format!("{again:#}").contains("keadm reset"), "{again:#}");

    // An edgecore runs on the store: nothing is told or removed, whatever --force says.
    let store = store_of(&order);
    let running = edge_store::hold(&store).unwrap();
    let refused = reset(&order.config, true, &mut |_| {}).await.unwrap_err();
    assert!(format!("{refused:#}").contains("systemctl disable --now edgecore"), "{refused:#}");
    assert!(order.config.file.exists());
    drop(running);
    let mut told = Vec::new();
    reset(&order.config, false, &mut |line| told.push(line)).await.unwrap();
    assert!(told[0].contains("has no Node"), "it never linked: {told:?}");
    assert!(!store.with_extension("db.lock").exists());
    assert!(!order.config.file.exists() && !settings.modules.edge_hub.tls_private_key_file.exists());
    let again = reset(&order.config, false, &mut |_| {}).await.unwrap_err().to_string();
    assert!(again.contains("was reset already") && again.contains("edgecore.yaml"), "{again}");
    join(&order, &mut |_| {}).await.expect("the name is free again");
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn kubeedges_places_mean_safe_ones_and_a_link_where_its_users_look() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().canonicalize().unwrap();
    let (shared, own) = (path.join("kubeedge"), path.join("own"));
    let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
    let mut order = order(&shared, &cloud, token);
    order.set.push(format!("modules.deviceTwin.dmiSockPath={}", shared.display()));
    order.set.push(format!("database.dataSource={}", own.join("edgecore.db").display()));

    let refused = join(&order, &mut |_| {}).await.unwrap_err();
    assert!(format!("{refused:#}").contains("this very file"), "{refused:#}");
    let link = shared.join("config/edgecore.yaml");
    order.config = ConfigLocation { file: own.join("edgecore.yaml"), link: Some(link.clone()) };
    let mut said = Vec::new();
    join(&order, &mut |line| said.push(line)).await.unwrap();
    for (old, new) in [
        ("ca/rootCA.crt", "rootCA.crt"),
        ("certs/server.crt", "server.crt"),
        ("certs/server.key", "server.key"),
    ] {
        let (old, new) = (shared.join(old), own.join("pki").join(new));
        assert!(new.exists() && !old.exists(), "{}", new.display());
        let both = |line: &&String| [&old, &new].iter().all(|path| line.contains(path.to_str().unwrap()));
        assert_eq!(said.iter().filter(both).count(), 1, "{said:?}");
    }
    assert_eq!(std::fs::read_link(&link).unwrap(), order.config.file);
    // What it wrote names the safe places itself; through the link one warning is left.
    assert_eq!(EdgeCore::load_with_warnings(&order.config.file).unwrap().1, [] as [String; 0]);
    let (settings, said) = EdgeCore::load_with_warnings(&link).unwrap();
    assert_eq!((settings.modules.edge_hub.tls_private_key_file, said.len()), (own.join("pki/server.key"), 1));

    // A mapper's file does not say what reset removes.
    let victim = path.join("victim");
    std::fs::write(&victim, "").unwrap();
    let planted = shared.join("planted.yaml");
    let text = format!(
        "{{database: {{dataSource: {}}}, modules: {{deviceTwin: {{dmiSockPath: {}}}}}}}",
        victim.display(),
        shared.display()
    );
    std::fs::write(&planted, text).unwrap();
    let refused = reset(&planted.into(), true, &mut |_| {}).await.unwrap_err();
    assert!(format!("{refused:#}").contains("this very file") && victim.exists(), "{refused:#}");

    reset(&order.config, false, &mut |_| {}).await.unwrap();
    assert!(link.symlink_metadata().is_err() && !own.join("pki/server.key").exists());
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn every_fault_is_a_sentence_with_its_cure_and_leaves_nothing_behind() {
    let env = Env::real();
    let (api, other_api) = (StandAlone::start(&env).await, StandAlone::start(&env).await);
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let other = EnrolmentCloud::start(other_api.client(), &env).await;
    let folder = tempfile::tempdir().unwrap();
    let good = order(folder.path(), &cloud, cloud.token(3600, None).await);
    let [closed] = testhost::free_ports().unwrap();
    let with = |change: &dyn Fn(&mut Join)| {
        let mut order = good.clone();
        change(&mut order);
        order
    };
    let (expired, foreign) = (cloud.token(-60, None).await, other.token(3600, None).await);
    let bound = cloud.token(3600, Some("edge-9")).await;
    let cases = [
        (with(&|o| o.token = "pasted.half".into()), "paste it whole"),
        (with(&|o| o.token = expired.clone()), "has expired"),
        (with(&|o| o.token = foreign.clone()), "does not pin"),
        (with(&|o| o.token = bound.clone()), "bound to the name `edge-9`"),
        (with(&|o| o.cloud.cert = closed), "check the address"),
        (with(&|o| o.node = "Not_A_Name".into()), "--edgenode-name"),
        (with(&|o| o.cloud.cloudcore = "nowhere".into()), "--cloudcore-ipport"),
        (with(&|o| o.set.push("modules.edgeHub.heartbeet=1".into())), "is no setting: write `heartbeat`"),
    ];
    for (order, words) in cases {
        let error = join(&order, &mut |_| {}).await.unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    // A machine that was made of another node's disk.
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let mut options = edge_store::Options::new([1; 16]);
    options.node = Some("golden".to_owned());
    drop(edge_store::Store::open(store.join("edgecore.db"), options).unwrap());
    let error = join(&good, &mut |_| {}).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("the store of node `golden`, and this is node `edge-1`"),
        "{error:#}"
    );
    std::fs::remove_dir_all(&store).unwrap();

    // A server that accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let order = with(&|o| o.cloud.cert = silent.local_addr().unwrap().port());
    let error = join(&order, &mut |_| {}).await.unwrap_err();
    assert!(format!("{error:#}").contains("no answer from"), "{error:#}");

    join(&good, &mut |_| {}).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let twin = with(&|o| {
        o.config = elsewhere.path().join("edgecore.yaml").into();
        o.set = ["tlsCaFile", "tlsCertFile", "tlsPrivateKeyFile"]
            .map(|key| format!("modules.edgeHub.{key}={}", elsewhere.path().join(key).display()))
            .to_vec();
    });
    let error = join(&twin, &mut |_| {}).await.unwrap_err();
    assert!(format!("{error:#}").contains("has a living certificate"), "{error:#}");
    cloud.server.stop().await;
    other.server.stop().await;
}

#[actix_rt::test]
async fn what_fails_on_the_machine_spends_no_token_and_leaves_neither_files_nor_the_name() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let folder = tempfile::tempdir().unwrap();
    let order = order(
        folder.path(),
        &cloud,
        keadm::get_token(api.client(), None, 1, keadm::TOKEN_LIFE, &env).await.unwrap(),
    );

    // A file where a folder is to be: found before the cloud is asked.
    let in_the_way = folder.path().join("config");
    std::fs::write(&in_the_way, "").unwrap();
    let refused = format!("{:#}", join(&order, &mut |_| {}).await.unwrap_err());
    assert!(refused.contains("config/edgecore.yaml"), "{refused}");
    std::fs::remove_file(&in_the_way).unwrap();

    // Somebody takes the name of the last file while the first ones are written.
    let mut take_name = |line: String| {
        if line.contains("wrote") && line.contains("server.key") {
            std::fs::create_dir_all(order.config.file.parent().unwrap()).unwrap();
            std::fs::write(&order.config.file, "somebody's").unwrap();
        }
    };
    let refused = format!("{:#}", join(&order, &mut take_name).await.unwrap_err());
    assert!(refused.contains("the name was given back") && refused.contains("gettoken"), "{refused}");
    let left: Vec<_> = ["certs/server.key", "certs/server.crt", "ca/rootCA.crt", "config/edgecore.yaml"]
        .into_iter()
        .filter(|file| folder.path().join(file).exists())
        .collect();
    assert_eq!(left, ["config/edgecore.yaml"], "somebody else's stays");
    std::fs::remove_file(&order.config.file).unwrap();
    let token = keadm::get_token(api.client(), None, 1, keadm::TOKEN_LIFE, &env).await.unwrap();
    join(&Join { token, ..order }, &mut |_| {}).await.expect("the name is free");
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn a_copied_disk_gives_back_no_name_of_the_machine_that_it_was_copied_from() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let folder = tempfile::tempdir().unwrap();
    let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
    let order = order(folder.path(), &cloud, token);
    join(&order, &mut |_| {}).await.unwrap();
    let key = EdgeCore::load(&order.config.file).unwrap().modules.edge_hub.tls_private_key_file;
    let node = contract::NodeName::parse("edge-1").unwrap();
    let before = cloud.registry.edge_node(&node).await.unwrap().unwrap().metadata;

    // The machine that has the copy is given a name of its own.
    let text = std::fs::read_to_string(&order.config.file).unwrap();
    std::fs::write(&order.config.file, text.replace("edge-1", "edge-2")).unwrap();
    let mut told = Vec::new();
    reset(&order.config, true, &mut |line| told.push(line)).await.unwrap();
    assert!(told[0].contains("`edge-1` was not given back") && told[0].contains("`edge-2`"), "{told:?}");
    assert!(!key.exists() && !order.config.file.exists(), "{told:?}");
    let after = cloud.registry.edge_node(&node).await.unwrap().unwrap().metadata;
    assert_eq!(after, before, "the other machine's certificate is as good as before");

    // Nor where the copy has the same settings, which name the node as the original's do.
    let (folder, node) = (tempfile::tempdir().unwrap(), contract::NodeName::parse("edge-3").unwrap());
    let token = keadm::get_token(api.client(), Some(&node), 1, keadm::TOKEN_LIFE, &env).await.unwrap();
    let order = Join { node: "edge-3".to_owned(), ..self::order(folder.path(), &cloud, token) };
    join(&order, &mut |_| {}).await.unwrap();
    let noted = folder.path().join("certs/server.crt.machine");
    let text = std::fs::read_to_string(&noted).unwrap();
    let others: String =
        text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned() + " other\n").collect();
    std::fs::write(&noted, others).unwrap();
    let before = cloud.registry.edge_node(&node).await.unwrap().unwrap().metadata;
    let mut told = Vec::new();
    reset(&order.config, false, &mut |line| told.push(line)).await.unwrap();
    // A machine that says nothing of itself cannot be told from another.
    if !text.is_empty() {
        assert!(
            told[0].contains("`edge-3` was not given back") && told[0].contains("keadm free"),
            "{told:?}"
        );
        assert_eq!(cloud.registry.edge_node(&node).await.unwrap().unwrap().metadata, before);
    }
    assert!(!noted.exists(), "{told:?}");
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn a_node_is_reset_in_the_middle_of_a_renewal_and_no_key_of_it_stays() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let authority = cloud_hub::SecretStore::new(api.client()).authority(&env).await.unwrap();
    let node = contract::NodeName::parse("edge-1").unwrap();
    for steps in 1..edge_hub::WriteStep::ALL.len() {
        let folder = tempfile::tempdir().unwrap();
        let token = keadm::get_token(api.client(), Some(&node), 1, keadm::TOKEN_LIFE, &env).await.unwrap();
        let order = order(folder.path(), &cloud, token);
        join(&order, &mut |_| {}).await.unwrap();
        let hub = EdgeCore::load(&order.config.file).unwrap().modules.edge_hub;
        let files = edge_hub::IdentityFiles {
            certificate: hub.tls_cert_file,
            key: hub.tls_private_key_file,
            authorities: hub.tls_ca_file,
        };
        // edgecore was killed while it wrote its next pair; its word that it has that one was never said.
        let registered = cloud.registry.edge_node(&node).await.unwrap().unwrap();
        let shown = noderegistry::plan::living(&registered.metadata).unwrap();
        let request = pki::NodeRequest::new("edge-1").unwrap();
        let day = std::time::Duration::from_secs(86_400);
        let issued =
            authority.sign_node(&request.csr_der, "edge-1", env.wall(), day, env.random_id()).unwrap();
        let next = noderegistry::Certificate { serial: issued.serial, not_after_unix: u64::MAX >> 2 };
        cloud.registry.renew(&node, &[shown], &next).await.unwrap();
        for step in edge_hub::WriteStep::ALL.into_iter().take(steps) {
            files.take(step, &issued.pem, &request.key_pem).unwrap();
        }
        std::fs::write(folder.path().join("certs/server.key.new"), "half of a key").unwrap();

        let mut told = Vec::new();
        reset(&order.config, false, &mut |line| told.push(line)).await.unwrap();
        assert!(told[0].contains("is given back"), "after {steps} steps: {told:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path().join("certs")).unwrap().collect();
        assert!(left.is_empty(), "after {steps} steps: {left:?}");
    }
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn a_key_is_made_in_a_token_and_goes_with_the_node() {
    let env = Env::real();
    let folder = tempfile::tempdir().unwrap();
    let Some(token) = testhost::SoftToken::under(folder.path()).unwrap() else { return };
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let jwt = keadm::get_token(api.client(), None, 1, keadm::TOKEN_LIFE, &env).await.unwrap();
    let order = Join { key_uri: Some(token.uri()), ..order(folder.path(), &cloud, jwt) };

    // What cannot work costs neither a file nor the join's token.
    for (uri, words) in [
        (token.uri().replace("My%20edge", "none"), "plugged in"),
        (token.uri().replace("pin-source", "pin-value"), "--key-uri"),
    ] {
        let error = join(&Join { key_uri: Some(uri), ..order.clone() }, &mut |_| {}).await.unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
        assert!(!order.config.file.exists());
    }
    let nowhere = CloudPorts::new("127.0.0.1:10000", 1);
    join(&Join { cloud: nowhere, ..order.clone() }, &mut |_| {}).await.unwrap_err();
    assert_eq!(token.keys().unwrap(), 0, "what was made for a join that failed is gone");

    join(&order, &mut |_| {}).await.unwrap();
    assert_eq!(token.keys().unwrap(), 1);
    let file = EdgeCore::load(&order.config.file).unwrap().modules.edge_hub.tls_private_key_file;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("PKCS#11 PROVIDER URI") && !text.contains("PRIVATE KEY"), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // The name is given back with a signature of the token's.
    let mut told = Vec::new();
    reset(&order.config, false, &mut |line| told.push(line)).await.unwrap();
    assert!(told[0].contains("is given back"), "{told:?}");
    assert!(told.iter().any(|line| line.contains("removed the key `kubehive edge-1`")), "{told:?}");
    assert_eq!(token.keys().unwrap(), 0);
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn a_token_lives_as_long_as_cloudcore_takes_one_and_no_longer() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, PostParams};
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    // Nobody can say here how long CloudCore takes one.
    let life =
        async |asked: Option<u64>| keadm::token_life(&api.client(), "kubeedge", asked.map(hours)).await;
    assert_eq!(life(None).await.unwrap(), (hours(24), None));
    assert_eq!(life(Some(1)).await.unwrap(), (hours(1), None));
    let (long, warning) = life(Some(72)).await.unwrap();
    assert!(
        long == hours(72)
            && warning.is_some_and(|words| words.contains("tokenRefreshDuration of CloudCore to 36"))
    );

    let map = serde_json::json!({
        "metadata": { "name": "cloudcore" },
        "data": { "cloudcore.yaml": "{modules: {cloudHub: {tokenRefreshDuration: 36, advertiseAddress: [192.0.2.1]}}}" },
    });
    let map: ConfigMap = serde_json::from_value(map).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(api.client(), "kubeedge");
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(life(None).await.unwrap(), (hours(72), None));
    assert_eq!(life(Some(72)).await.unwrap(), (hours(72), None));
    let refused = format!("{:#}", life(Some(73)).await.unwrap_err());
    assert!(refused.contains("older than 72h") && refused.contains("to 37"), "{refused}");

    // What is printed has that end.
    let token = keadm::get_token(api.client(), None, 1, hours(72), &env).await.unwrap();
    let now = env.wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = pki::JoinToken::parse(&token).unwrap();
    let claims = cloud.token_key.verify(&token.jwt, now, "edge-1").unwrap();
    assert!((now + 72 * 3600 - 60..=now + 72 * 3600).contains(&claims.exp), "{}", claims.exp);
    cloud.server.stop().await;
}

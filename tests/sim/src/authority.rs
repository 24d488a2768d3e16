//! The CA of a run, and who keeps it: no clock that jumps, and be it by ten years, has it give way to another one.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Capacity, Env, Hive, Policy};
use cloud_hub::{
    AuthorityLives, CertificateKeeper, ClockDoubt, KeeperDependencies, SecretStore, ServerCertificate,
};
use contract::cloudhub::CloudHubMsg;
use pki::{CurrentAuthorities, SubjectAltNames};

/// The seconds of a day.
const DAY: u64 = 86_400;
/// The defaults of `cloudcore.yaml`.
const LIVES: AuthorityLives = AuthorityLives {
    own: Duration::from_secs(3650 * DAY),
    lead: Duration::from_secs(30 * DAY),
    trail: Duration::from_secs(120 * DAY),
};
/// And of what CloudCore shows.
const SERVER_LIFE: Duration = Duration::from_secs(30 * DAY);

/// The CA that a run begins with.
pub(crate) struct KeptAuthority {
    /// The run's own way to the API.
    secrets: SecretStore,
    env: Env,
    first: Vec<Vec<u8>>,
}

/// One CloudCore's keeper, before its hive is opened.
pub(crate) struct Keeping {
    secrets: SecretStore,
    authorities: CurrentAuthorities,
}

impl KeptAuthority {
    /// Makes it.
    pub(crate) async fn made(client: &kube::Client, env: &Env) -> KeptAuthority {
        let secrets = SecretStore::new(client.clone());
        let made = secrets.authorities(&LIVES, env).await.expect("a CA is made");
        KeptAuthority { secrets, env: env.clone(), first: made.trusted() }
    }

    /// For a CloudCore with its own way to the API.
    pub(crate) async fn keeping(&self, client: &kube::Client) -> Keeping {
        let now = self.secrets.authorities(&LIVES, &self.env).await.expect("the CA is there");
        Keeping { secrets: SecretStore::new(client.clone()), authorities: CurrentAuthorities::new(now) }
    }

    /// What is wrong with it: runs are over long before a CA is.
    pub(crate) async fn defect(&self) -> Option<String> {
        let now = self.secrets.authorities(&LIVES, &self.env).await;
        match now {
            Ok(now) if now.trusted() == self.first => None,
            Ok(now) => Some(format!("the CA has given way: {} are trusted", now.trusted().len())),
            Err(error) => Some(format!("the CA cannot be read: {error}")),
        }
    }
}

impl Keeping {
    /// Makes the actor.
    pub(crate) fn wire(self, hive: &mut Hive, mailboxes: &cloud::topology::Mailboxes) {
        let mailbox = hive.mailbox("certificates", Capacity::new(1, "one look at a time"));
        let Keeping { secrets, authorities } = self;
        let (doubt, names) = (ClockDoubt::default(), SubjectAltNames::default());
        let server = ServerCertificate::new(authorities.clone(), names, SERVER_LIFE, doubt.clone());
        let hub: Address<CloudHubMsg> = mailboxes.certificates_to_hub.clone();
        let keeper =
            KeeperDependencies { secrets, lives: LIVES, authorities, server: Rc::new(server), hub, doubt };
        hive.supervise(mailbox, Policy::default(), move || CertificateKeeper::new(keeper.clone()));
    }
}

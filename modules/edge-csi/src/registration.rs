//! The registration of one plugin: asked what it is, looked at, told what became of it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use contract::csi_node::CSI_DRIVERS_MAX;
use csi::{Driver, Registrar};

use crate::events;
use crate::plan;
use crate::state::{Registered, State};

/// 1 s for a registrar to say what it registers, 5 s to hear what became of it.
const INFO: Duration = Duration::from_secs(1);
const NOTIFY: Duration = Duration::from_secs(5);
/// 500 ms, doubled up to 2 min 2 s, before a plugin is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(122);

/// Registers what the socket offers, again and again until that goes well or the socket is another one.
pub(crate) async fn register(state: Rc<State>, socket: String, seen: (u64, u64)) {
    let mut pause = AGAIN_AFTER;
    while state.sockets.borrow().get(&socket) == Some(&seen) {
        let registrar = Registrar::at(Path::new(&socket));
        match try_register(&state, &registrar, &socket, seen).await {
            Ok(()) => return,
            Err(reason) => events::registration_failed(&state.env, Path::new(&socket), &reason),
        }
        state.env.sleep(pause).await;
        pause = (2 * pause).min(AGAIN_MAX);
    }
}

async fn try_register(
    state: &State,
    registrar: &Registrar,
    socket: &str,
    seen: (u64, u64),
) -> Result<(), String> {
    let info = registrar.info(INFO).await.map_err(|error| format!("GetInfo: {error}"))?;
    let registered = |name: &str| {
        let drivers = state.drivers.borrow();
        // Its own earlier registration is no rival.
        drivers.get(name).filter(|found| found.registrar != socket).map(|found| found.version)
    };
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { info.endpoint.clone() };
    let result = match plan::validate(&info, socket, registered) {
        Ok(version) => match node_of(state, &info.name, &endpoint).await {
            // What went while it was asked is forgotten already.
            Ok(_) if state.sockets.borrow().get(socket) != Some(&seen) => {
                Err("RegisterPlugin error -- its socket has gone".to_owned())
            }
            Ok(_) if !state.has_room_for(&info.name) => Err(format!(
                "RegisterPlugin error -- plugin registration failed with err: this node has {CSI_DRIVERS_MAX} drivers already"
            )),
            Ok(node) => {
                let endpoint = PathBuf::from(&endpoint);
                events::driver_registered(&state.env, &info.name, &endpoint);
                let entry = Registered { registrar: socket.to_owned(), endpoint, version, node };
                state.drivers.borrow_mut().insert(info.name.clone(), entry);
                state.tell();
                Ok(())
            }
            Err(error) => {
                Err(format!("RegisterPlugin error -- plugin registration failed with err: {error}"))
            }
        },
        Err(error) => Err(error),
    };
    let told = registrar.notify(result.as_ref().err().map(String::as_str), NOTIFY).await;
    if let (Ok(()), Err(error)) = (&result, told) {
        // The driver can be used; who registers it will try again if it cares.
        tracing::warn!(socket, %error, "the registrar does not hear that its plugin is registered");
    }
    result
}

async fn node_of(
    state: &State,
    name: &str,
    endpoint: &str,
) -> Result<contract::csi_node::CsiNodeDriver, String> {
    if !endpoint.starts_with('/') {
        return Err(format!("the endpoint \"{}\" is no path", endpoint.chars().take(64).collect::<String>()));
    }
    let driver = Driver::at(Path::new(endpoint), state.call_deadline);
    let info = driver
        .info()
        .await
        .map_err(|error| format!("error getting CSI driver node info from the driver: {error}"))?;
    plan::driver_of(name, info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::state;
    use strictdriver::{Options, StrictDriver};

    #[test]
    fn a_driver_whose_socket_went_while_it_was_asked_is_not_registered() {
        actix_rt::System::new().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let driver = StrictDriver::start(dir.path(), &Options::new("d.io"), None).unwrap();
            let (state, _probe) = state(&beehive::Env::real());
            let socket = dir.path().join("plugins_registry/d.io-reg.sock").display().to_string();
            let registrar = Registrar::at(Path::new(&socket));
            let gone = try_register(&state, &registrar, &socket, (1, 1)).await.unwrap_err();
            assert!(gone.contains("its socket has gone"), "{gone}");
            assert!(state.drivers.borrow().is_empty());
            state.sockets.borrow_mut().insert(socket.clone(), (1, 1));
            try_register(&state, &registrar, &socket, (1, 1)).await.unwrap();
            let entry = state.drivers.borrow()["d.io"].clone();
            // As many as a CSINode may hold.
            for number in 1..CSI_DRIVERS_MAX {
                state.drivers.borrow_mut().insert(format!("d{number}"), entry.clone());
            }
            assert!(state.has_room_for("d.io") && !state.has_room_for("other"));
            assert_eq!(driver.told().len(), 2);
        });
    }
}

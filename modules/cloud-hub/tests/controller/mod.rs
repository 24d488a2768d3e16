//! In EdgeController's place: takes every node, and tells a probe the rest.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use beehive::testing::Probe;
use beehive::{Actor, Address, Capacity, Context, Env, Fault, Flow, Hive, Policy};
use contract::edgecontroller::{ClaimRefused, EdgeControllerMsg};

/// What the next nodes are answered; empty: the next epoch.
#[derive(Clone, Default)]
pub(crate) struct Answers(pub(crate) Rc<RefCell<Vec<Result<u64, ClaimRefused>>>>);

struct Controller {
    epoch: Rc<Cell<u64>>,
    answers: Answers,
    probe: Address<EdgeControllerMsg>,
}

impl Actor for Controller {
    type Message = EdgeControllerMsg;

    async fn handle(
        &mut self,
        message: EdgeControllerMsg,
        _: &mut Context<EdgeControllerMsg>,
    ) -> Result<(), Fault> {
        match message {
            EdgeControllerMsg::Claim { reply, .. } => {
                let answer = self.answers.0.borrow_mut().pop();
                reply.send(answer.unwrap_or_else(|| {
                    self.epoch.set(self.epoch.get() + 1);
                    Ok(self.epoch.get())
                }));
            }
            other => {
                let _ = self.probe.tell(other).await;
            }
        }
        Ok(())
    }
}

/// Puts one into the hive. Answers what it is told beside claims, and its address for the hub.
pub(crate) fn of(
    hive: &mut Hive,
    env: &Env,
    answers: &Answers,
) -> (Probe<EdgeControllerMsg>, Address<EdgeControllerMsg>) {
    let (probe, told) = Probe::new(env, 16);
    let mailbox =
        hive.mailbox::<EdgeControllerMsg>("cloud-edgecontroller", Capacity::new(64, "a test's choice"));
    let address = hive.grant("cloud-hub", &mailbox, Flow::Ask);
    let (epoch, answers) = (Rc::default(), answers.clone());
    hive.supervise(mailbox, Policy::default(), move || Controller {
        epoch: Rc::clone(&epoch),
        answers: answers.clone(),
        probe: told.clone(),
    });
    (probe, address)
}

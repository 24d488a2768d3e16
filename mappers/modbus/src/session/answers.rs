//! What a device answers: asked again while it is busy, and taken for what it says.

use std::time::Duration;

use framework::Fault;
use tokio::time::sleep;
use tokio_modbus::{ExceptionCode, Request, Response};

use crate::line::{Answer, Turn};
use crate::words;

/// A device that is busy (exception 6) is asked again after these.
const BUSY: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];

/// Asks, again while the device is busy.
pub(super) async fn answered(
    turn: &mut Turn<'_>,
    request: &Request<'static>,
    is_repeatable: bool,
) -> Result<Answer, Fault> {
    for pause in BUSY {
        match turn.ask(request, is_repeatable).await? {
            // It has done nothing.
            Err(ExceptionCode::ServerDeviceBusy) => sleep(pause).await,
            answer => return Ok(answer),
        }
    }
    turn.ask(request, is_repeatable).await
}

/// An answer that is none of an exception.
pub(super) async fn asked(
    turn: &mut Turn<'_>,
    request: &Request<'static>,
    is_repeatable: bool,
) -> Result<Response, Fault> {
    let answer = answered(turn, request, is_repeatable).await?;
    answer.map_err(|exception| refused(exception, request, turn.unit()))
}

/// Writes, and takes the device's word for it.
pub(super) async fn sent(turn: &mut Turn<'_>, request: &Request<'static>) -> Result<(), Fault> {
    let answer = answered(turn, request, false).await?;
    confirmed(turn.unit(), request, answer)
}

pub(super) fn confirmed(unit: u8, request: &Request<'_>, answer: Answer) -> Result<(), Fault> {
    match answer {
        Ok(answer) if confirms(request, &answer) => Ok(()),
        Ok(answer) => Err(stranger(&answer)),
        // Accepted, and it takes its time: it is read back later.
        Err(ExceptionCode::Acknowledge) => Ok(()),
        Err(exception) => Err(refused(exception, request, unit)),
    }
}

/// A device answers a write with what it wrote.
fn confirms(request: &Request<'_>, answer: &Response) -> bool {
    match (request, answer) {
        (Request::WriteSingleCoil(to, bit), Response::WriteSingleCoil(at, done)) => to == at && bit == done,
        (Request::WriteSingleRegister(to, word), Response::WriteSingleRegister(at, done)) => {
            to == at && word == done
        }
        (Request::WriteMultipleCoils(to, bits), Response::WriteMultipleCoils(at, done)) => {
            to == at && bits.len() == usize::from(*done)
        }
        (Request::WriteMultipleRegisters(to, words), Response::WriteMultipleRegisters(at, done)) => {
            to == at && words.len() == usize::from(*done)
        }
        (Request::MaskWriteRegister(to, and, or), Response::MaskWriteRegister(at, kept, set)) => {
            to == at && and == kept && or == set
        }
        _ => false,
    }
}

pub(super) fn stranger(answer: &Response) -> Fault {
    Fault::Device(format!(
        "the answer (function {}) does not belong to the request; look whether anybody else asks on this line, and at the device's version",
        answer.function_code().value()
    ))
}

fn refused(exception: ExceptionCode, request: &Request<'_>, unit: u8) -> Fault {
    let said = words::exception(exception, request, unit);
    match exception {
        // A gateway that does not reach the device: this one is away, and nothing else is known.
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice => {
            Fault::Silent(format!("the gateway says: {said}"))
        }
        _ => Fault::Device(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_something_else_is_no_confirmation() {
        assert!(confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteSingleRegister(1, 2)));
        assert!(!confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteSingleRegister(1, 3)));
        assert!(!confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteMultipleRegisters(1, 1)));
        let many = Request::WriteMultipleRegisters(1, vec![1, 2].into());
        assert!(confirms(&many, &Response::WriteMultipleRegisters(1, 2)));
        assert!(!confirms(&many, &Response::WriteMultipleRegisters(1, 1)));
        let mask = Request::MaskWriteRegister(1, !8, 8);
        assert!(confirms(&mask, &Response::MaskWriteRegister(1, !8, 8)));
    }

    #[test]
    fn a_gateway_without_its_device_is_a_silent_device() {
        let refused = |exception| refused(exception, &Request::ReadCoils(0, 1), 1);
        assert!(matches!(refused(ExceptionCode::GatewayTargetDevice), Fault::Silent(_)));
        assert!(matches!(refused(ExceptionCode::IllegalDataAddress), Fault::Device(_)));
    }
}

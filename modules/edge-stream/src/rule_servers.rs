//! Whom EdgeStream asks for what rules bring.

use beehive::Address;
use contract::eventbus::EventBusMsg;
use contract::servicebus::ServiceBusMsg;

/// Who does what rules bring.
#[derive(Clone, Default)]
pub(crate) struct RuleServers {
    /// Who publishes.
    pub(crate) bus: Option<Address<EventBusMsg>>,
    /// Who calls services, if that is on.
    pub(crate) services: Option<Address<ServiceBusMsg>>,
}

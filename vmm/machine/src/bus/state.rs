//! The devices' state: taken, and put into devices elsewhere.

use super::{Bus, hash};
use bincode::{Decode, Encode};
use ft_protocol::log::MachineConfig;
use lockstep_devices::BadState;
use lockstep_devices::clock::Clock;
use lockstep_devices::edges::EdgeCounter;
use lockstep_devices::pic::Pic;
use lockstep_devices::pit::Pit;
use lockstep_devices::uart::{Uart, UartState};
use lockstep_devices::virtio::{Console, Mmio, MmioState, Net, NetState, Rng};
use lockstep_memory::Ram;
use std::collections::VecDeque;

/// The state of every device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BusState {
    pic: Pic,
    pit: Pit,
    clock: Clock,
    edges: EdgeCounter,
    uart: UartState,
    console: (MmioState, VecDeque<u8>),
    pub(super) net: Option<(MmioState, NetState)>,
    rng: (MmioState, Rng),
}

impl BusState {
    /// A digest of each device, by name.
    pub fn components(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("8259 pair", hash(&self.pic)),
            ("8254", hash(&self.pit)),
            ("clock", hash(&self.clock)),
            ("edge counter", hash(&self.edges)),
            ("16550", hash(&self.uart)),
            ("virtio-console", hash(&self.console)),
            ("virtio-net", hash(&self.net)),
            ("virtio-rng", hash(&self.rng)),
        ]
    }
}

impl Bus {
    /// The devices of a machine of this configuration in this state, which may come from anybody.
    pub fn restore(config: &MachineConfig, state: &BusState, ram: &Ram) -> Result<Bus, BadState> {
        state.pic.validate()?;
        state.clock.validate()?;
        state.pit.validate(state.clock.now_ns())?;
        state.edges.validate(config.quantum)?;
        let net = match (config.net, &state.net) {
            (None, None) => None,
            (Some(net), Some((transport, device))) => {
                let device = Net::restore(net.mac, device.clone())?;
                Some(Mmio::restore(device, transport, ram.map())?)
            }
            _ => {
                return Err(BadState {
                    device: "virtio-net",
                    what: "either the state or the machine has none".into(),
                });
            }
        };
        let (console, input) = &state.console;
        let (rng, requests) = &state.rng;
        requests.validate()?;
        Ok(Bus {
            pic: state.pic.clone(),
            pit: state.pit.clone(),
            clock: state.clock.clone(),
            edges: state.edges.clone(),
            uart: Uart::restore(&state.uart)?,
            console: Mmio::restore(Console::restore(input.clone())?, console, ram.map())?,
            net,
            rng: Mmio::restore(requests.clone(), rng, ram.map())?,
        })
    }

    /// The state of every device, after [`Bus::process`].
    pub fn save(&mut self) -> BusState {
        let unsent = self.uart.take_edge() || !self.uart.take_sent().is_empty();
        assert!(
            !unsent,
            "the 16550's edges and bytes are carried on at once"
        );
        BusState {
            pic: self.pic.clone(),
            pit: self.pit.clone(),
            clock: self.clock.clone(),
            edges: self.edges.clone(),
            uart: self.uart.state(),
            console: (
                self.console.state(),
                self.console.device().waiting().clone(),
            ),
            net: self
                .net
                .as_mut()
                .map(|net| (net.state(), net.device().state().clone())),
            rng: (self.rng.state(), self.rng.device().clone()),
        }
    }
}

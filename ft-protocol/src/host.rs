//! What the state machines need done, and the one place where their actions are taken apart.
//!
//! Who drives a state machine implements these traits: the runtime with sockets, threads and a guest, the
//! simulation and the model checker with models of them. [`drive_primary`] and [`drive_backup`] are to be called
//! after everything that was handed in.

use crate::arbiter::Standing;
use crate::backup::{Backup, BackupAction, BackupEnd, BackupQuestion, BackupTurn, Build, Delivery};
use crate::log::{Header, Position};
use crate::primary::{Copying, Primary, PrimaryAction, PrimaryEnd, PrimaryQuestion, PrimaryTurn};
use crate::reason::{HaltReason, Loss};
use crate::transfer::Right;
use crate::wire::{Beat, Message, Request};

/// What both sides of a pair need done.
pub trait Host {
    /// How a life as this side ended.
    type End;
    /// Why something could not be done at all.
    type Error;

    /// Sends this to the peer, after what was sent before.
    fn send(&mut self, message: Message);
    /// Sends this by UDP, if it is known where to.
    fn beat(&mut self, beat: Beat);
    /// Sends what is to be sent, then closes the connection.
    fn disconnect(&mut self);

    /// Claims the generation, to be answered by `handle_claim`.
    fn claim(&mut self, generation: u64);
    /// It was won: shuts the other side out of whatever both could write to, to be answered by
    /// `handle_fenced`.
    fn fence(&mut self, generation: u64);
    /// Writes the generation's close record, to be answered by `handle_closed`.
    fn close(&mut self, generation: u64);

    /// Stops for good; nothing more leaves.
    fn halt(&mut self, reason: HaltReason) -> Self::End;
    /// The guest has ended and everything is done. If the generation is not `closed`, the next cold start
    /// will have to be forced.
    fn finish(&mut self, closed: bool) -> Self::End;
}

/// What a primary needs done.
pub trait PrimaryHost: Host {
    /// The state machine.
    fn primary(&mut self) -> &mut Primary;
    /// Sees each action before it is done; for tests.
    fn sees(&mut self, _action: &PrimaryAction) {}

    /// The log's header and the guest's ELF file: what a backup needs to build the machine.
    fn made_of(&self) -> (Header, Vec<u8>);
    /// Takes the frames of the log up to this entry that were not taken yet.
    fn take_log(&mut self, up_to: u64) -> Vec<u8>;
    /// Nobody reads the log: what was not taken is of no use.
    fn forget_log(&mut self);

    /// Copies the machine that runs: `handle_piece` for each piece of its memory, `handle_captured` at the
    /// end.
    fn begin_copy(&mut self);
    /// Takes the first piece of the copy that was not taken yet.
    fn take_piece(&mut self) -> Vec<u8>;
    /// Takes the rest of the copy, as [`Message::State`].
    fn take_state(&mut self) -> Message;
    /// Whatever was or is copied is of no more use.
    fn stop_copy(&mut self);

    /// Hands the outputs up to this number to the backends, in order and as long as
    /// [`Primary::may_release`] says so; then the last one that they took to [`Primary::handle_released`].
    fn release(&mut self, up_to: u64) -> Result<(), Self::Error>;
    /// How fast the vCPU may go from now on: whether it may enter the guest at all, and how much of its time
    /// it rests, percent.
    fn pace(&mut self, may_run: bool, rest: u32);

    /// Writes the generation's open record, to be answered by `handle_opened`.
    fn open(&mut self, right: Right);
    /// These records vanished: writes them again, the claim first if it was won. The next look tells
    /// whether they are there.
    fn put_back(&mut self, standing: Standing);

    /// Lets the vCPU execute.
    fn start(&mut self) -> Result<(), Self::Error>;
    /// Lets the vCPU rest at its next position, to be answered by `handle_parked`.
    fn park(&mut self);
    /// Lets the vCPU that rests run on.
    fn resume(&mut self);
    /// The backup counts as lost. The arbiter decides the rest.
    fn backup_lost(&mut self, loss: Loss);
    /// There is a backup again.
    fn protected(&mut self, generation: u64);
    /// This side won, and runs on alone.
    fn go_solo(&mut self, generation: u64);
    /// The backup's operator asks for this.
    fn requested(&mut self, request: Request);

    /// The backup goes on: nothing is left to do here.
    fn handed_over(&mut self, generation: u64) -> Self::End;
    /// Nothing ever ran, and this side was told to leave: closes the generations that it won.
    fn leave(&mut self) -> Self::End;
}

/// Does what the primary asks for; how it ended, if it did.
///
/// # Errors
/// If something could not be done at all.
pub fn drive_primary<H: PrimaryHost>(host: &mut H) -> Result<Option<H::End>, H::Error> {
    while let Some(action) = host.primary().poll_action() {
        host.sees(&action);
        match action {
            PrimaryAction::Send(message) => host.send(message),
            PrimaryAction::Beat(beat) => host.beat(beat),
            PrimaryAction::Welcome { protocol, right } => welcome(host, protocol, right),
            PrimaryAction::Offer { protocol, right } => offer(host, protocol, right),
            PrimaryAction::SendLog { up_to } => send_log(host, up_to),
            PrimaryAction::Disconnect => host.disconnect(),
            PrimaryAction::Copy(copying) => copy(host, copying),
            PrimaryAction::Release { up_to } => host.release(up_to)?,
            PrimaryAction::Ask(question) => match question {
                PrimaryQuestion::Open(right) => host.open(right),
                PrimaryQuestion::Claim { generation } => host.claim(generation),
                PrimaryQuestion::Fence { generation } => host.fence(generation),
                PrimaryQuestion::Close { generation } => host.close(generation),
            },
            PrimaryAction::PutBack(standing) => host.put_back(standing),
            PrimaryAction::Turn(turn) => turn_primary(host, turn)?,
            PrimaryAction::End(end) => {
                return Ok(Some(match end {
                    PrimaryEnd::HandedOver { generation } => host.handed_over(generation),
                    PrimaryEnd::Leave => host.leave(),
                    PrimaryEnd::Halt(reason) => host.halt(reason),
                    PrimaryEnd::Finish { closed } => host.finish(closed),
                }));
            }
        }
    }
    if !host.primary().sends_log() {
        host.forget_log();
    }
    let (may_run, rest) = (host.primary().may_run(), host.primary().rest());
    host.pace(may_run, rest);
    Ok(None)
}

fn turn_primary<H: PrimaryHost>(host: &mut H, turn: PrimaryTurn) -> Result<(), H::Error> {
    match turn {
        PrimaryTurn::Start => host.start()?,
        PrimaryTurn::Park => host.park(),
        PrimaryTurn::Resume => host.resume(),
        PrimaryTurn::BackupLost(loss) => host.backup_lost(loss),
        PrimaryTurn::Protected { generation } => host.protected(generation),
        PrimaryTurn::GoSolo { generation } => host.go_solo(generation),
        PrimaryTurn::Requested(request) => host.requested(request),
    }
    Ok(())
}

fn welcome(host: &mut impl PrimaryHost, protocol: u32, right: Right) {
    let (header, image) = host.made_of();
    host.send(Message::Welcome {
        protocol,
        generation: right.generation,
        members: right.members,
        nonce: right.nonce,
        header: Box::new(header),
        image,
    });
}

fn offer(host: &mut impl PrimaryHost, protocol: u32, right: Right) {
    let (header, image) = host.made_of();
    let source = host.primary().me();
    host.send(Message::Offer {
        protocol,
        generation: right.generation,
        members: right.members,
        nonce: right.nonce,
        source,
        header: Box::new(header),
        image,
    });
}

fn send_log(host: &mut impl PrimaryHost, up_to: u64) {
    let frames = host.take_log(up_to);
    if !frames.is_empty() {
        host.send(Message::Log { frames });
    }
}

fn copy(host: &mut impl PrimaryHost, copying: Copying) {
    match copying {
        Copying::Begin => host.begin_copy(),
        Copying::SendPiece => {
            let pages = host.take_piece();
            host.send(Message::Memory { pages });
        }
        Copying::SendState => {
            let state = host.take_state();
            host.send(state);
        }
        Copying::Stop => host.stop_copy(),
    }
}

/// What a backup needs done.
pub trait BackupHost: Host {
    /// The state machine.
    fn backup(&mut self) -> &mut Backup;
    /// Sees each action before it is done; for tests.
    fn sees(&mut self, _action: &BackupAction) {}

    /// Reads the generation's open record through this side's own arbiter, to be answered by
    /// `handle_read_back`.
    fn read_back(&mut self, generation: u64);

    /// Builds the machine, or makes room for a copy of it (`copied`), to be answered by `handle_booted` or
    /// `handle_boot_failed`. The image's hash is to be compared with the header's.
    fn boot(
        &mut self,
        generation: u64,
        header: Header,
        image: Vec<u8>,
        copied: bool,
    ) -> Result<(), Self::Error>;
    /// Puts these pages into the memory, to be answered by `handle_loaded` or `handle_boot_failed`.
    fn load(&mut self, pages: Vec<u8>);
    /// The memory is complete: builds the machine from it and from this, to be answered by
    /// `handle_restored` or `handle_boot_failed`. See [`Build::Restore`].
    fn restore(
        &mut self,
        seq: u64,
        at: Position,
        outputs: u64,
        state: Vec<u8>,
    ) -> Result<(), Self::Error>;
    /// Throws away the machine that is being built.
    fn discard(&mut self);

    /// Puts these into the buffer for the vCPU. They are acknowledged by the next action.
    fn deliver(&mut self, delivery: Delivery) -> Result<(), Self::Error>;
    /// The primary released the outputs up to this number; they will never be emitted here.
    fn forget_outputs(&mut self, up_to: u64);

    /// This side protects the VM now.
    fn armed(&mut self, generation: u64);
    /// The primary is suspected: lets the vCPU execute all there is.
    fn suspect(&mut self, loss: Loss);
    /// The primary was heard again: nothing happened.
    fn withdraw(&mut self);
    /// The primary handed over: lets the vCPU execute all there is.
    fn take_over(&mut self);
    /// The primary is gone before there was a pair; this side connects again.
    fn primary_lost(&mut self, loss: Loss);
    /// This side won: hands to the backends, in order, every output that was not forgotten.
    fn emit_held(&mut self) -> Result<(), Self::Error>;
    /// Announces the MAC address on the network.
    fn announce(&mut self);

    /// The life as a backup ends: lets the vCPU go on from live inputs, and outputs out as they come.
    fn live(&mut self, generation: u64) -> Self::End;
}

/// Does what the backup asks for; how it ended, if it did.
///
/// # Errors
/// If something could not be done at all.
pub fn drive_backup<H: BackupHost>(host: &mut H) -> Result<Option<H::End>, H::Error> {
    while let Some(action) = host.backup().poll_action() {
        host.sees(&action);
        match action {
            BackupAction::Send(message) => host.send(message),
            BackupAction::Beat(beat) => host.beat(beat),
            BackupAction::Disconnect => host.disconnect(),
            BackupAction::Ask(question) => match question {
                BackupQuestion::ReadBack { generation } => host.read_back(generation),
                BackupQuestion::Claim { generation } => host.claim(generation),
                BackupQuestion::Fence { generation } => host.fence(generation),
                BackupQuestion::Close { generation } => host.close(generation),
            },
            BackupAction::Build(build) => build_for(host, build)?,
            BackupAction::Deliver(delivery) => host.deliver(delivery)?,
            BackupAction::ForgetOutputs { up_to } => host.forget_outputs(up_to),
            BackupAction::Turn(turn) => turn_backup(host, turn)?,
            BackupAction::End(end) => {
                return Ok(Some(match end {
                    BackupEnd::Live { generation } => host.live(generation),
                    BackupEnd::Halt(reason) => host.halt(reason),
                    BackupEnd::Finish { closed } => host.finish(closed),
                }));
            }
        }
    }
    Ok(None)
}

fn build_for<H: BackupHost>(host: &mut H, build: Build) -> Result<(), H::Error> {
    match build {
        Build::Boot {
            generation,
            header,
            image,
            copied,
        } => host.boot(generation, *header, image, copied)?,
        Build::Load { pages } => host.load(pages),
        Build::Restore {
            seq,
            at,
            outputs,
            state,
        } => host.restore(seq, at, outputs, state)?,
        Build::Discard => host.discard(),
    }
    Ok(())
}

fn turn_backup<H: BackupHost>(host: &mut H, turn: BackupTurn) -> Result<(), H::Error> {
    match turn {
        BackupTurn::Armed { generation } => host.armed(generation),
        BackupTurn::Suspect(loss) => host.suspect(loss),
        BackupTurn::Withdraw => host.withdraw(),
        BackupTurn::TakeOver => host.take_over(),
        BackupTurn::PrimaryLost(loss) => host.primary_lost(loss),
        BackupTurn::EmitHeld => host.emit_held()?,
        BackupTurn::Announce => host.announce(),
    }
    Ok(())
}

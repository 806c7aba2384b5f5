//! Faults that tests plant into the protocol, to check that the tests detect them. Outside of this
//! crate's tests no fault is ever planted, and checking for one costs nothing.

/// One wrong step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests plant them"))]
pub(crate) enum Mutant {
    /// The backup acknowledges one entry more than it has.
    AckBeforeReceipt,
    /// The primary releases an output that was not acknowledged.
    ReleaseBeforeAck,
    /// The primary goes on alone without the test-and-set.
    SoloWithoutClaim,
    /// A primary that lost the test-and-set goes on.
    IgnoresLostClaim,
    /// The generation that was won before the start is used again.
    GenerationNotRaised,
    /// The backup claims before it has executed all entries.
    AsksBeforeCaughtUp,
    /// The backup does not emit the outputs that the primary may not have released.
    NotEmittedAgain,
    /// The backup forgets one output more than the primary reported.
    ForgetsTooMuch,
    /// The backup goes live before the fence has succeeded.
    LiveBeforeFence,
    /// A primary that has handed over runs on without having won the claim.
    ResumesWithoutRight,
    /// The joiner is armed before the generation is open and everything is acknowledged.
    ArmsTooEarly,
    /// A source that arms its joiner releases outputs as if it still ran alone.
    ReleasesTooEarly,
    /// The joiner claims although it was never armed.
    AsksUnarmed,
    /// A backup that diverged reports it, but goes on following.
    GoesOnDiverged,
    /// The primary does not ask again when the arbiter has not answered.
    AsksOnlyOnce,
    /// The primary treats a missing record as a right to go on alone.
    GoesOnUnrecorded,
    /// The primary of a pair puts its record back before its backup has shown that it has not claimed.
    PutsBackUnagreed,
    /// A side that runs alone puts its open record back without its claim.
    PutsBackUnclaimed,
    /// The joiner is armed before it has acknowledged what led to the outputs that have left.
    ArmsUnacknowledged,
    /// The joiner is armed before the outputs from before its copy have left.
    ArmsOverOldOutputs,
    /// The digests of a copy are not compared.
    AcceptsAnyCopy,
    /// The log is sent before the copy that it goes on from.
    OvertakesCopy,
    /// More of a copy is sent than there is room for.
    IgnoresWindow,
    /// The generation of a joiner that was lost is opened again for the next.
    NumberUsedAgain,
    /// At the end the generation of a joiner that was lost stays open.
    LeavesOneOpen,
    /// A primary that was away releases outputs on acknowledgements from before.
    TrustsOldWords,
}

impl Mutant {
    /// Is this fault the planted one?
    #[cfg(test)]
    pub(crate) fn is(self, planted: Option<Mutant>) -> bool {
        planted == Some(self)
    }
}

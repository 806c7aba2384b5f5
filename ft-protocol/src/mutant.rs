//! Faults that tests plant into the protocol, to see that its checks fire. Outside of this crate's tests
//! none is ever planted, and asking costs nothing.

/// One wrong step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests plant them"))]
pub(crate) enum Mutant {
    /// The backup acknowledges one entry more than it has.
    AckBeforeReceipt,
    /// The primary lets an output go that nobody has acknowledged.
    ReleaseBeforeAck,
    /// The primary goes on alone without the test-and-set.
    SoloWithoutClaim,
    /// A primary that lost the test-and-set goes on.
    IgnoresLostClaim,
    /// The generation that was won before the start is used again.
    GenerationNotRaised,
    /// The backup asks with entries left that it has not executed.
    AsksBeforeCaughtUp,
    /// The backup does not emit what the primary may not have released.
    NotEmittedAgain,
    /// The backup forgets one output more than the primary reported.
    ForgetsTooMuch,
    /// The backup goes live before the fence has succeeded.
    LiveBeforeFence,
    /// A primary that has handed over runs on without having won.
    ResumesWithoutRight,
    /// Whoever joins is armed before the generation is open and everything is acknowledged.
    ArmsTooEarly,
    /// A side that arms a backup lets outputs go as if it still ran alone.
    ReleasesTooEarly,
    /// Whoever joins claims, although it was never armed.
    AsksUnarmed,
    /// A backup that diverged says so and follows on.
    GoesOnDiverged,
    /// The primary does not ask again when the arbiter did not answer.
    AsksOnlyOnce,
    /// The primary takes a record that is gone for a right to go on alone.
    GoesOnUnrecorded,
    /// The primary of a pair puts its record back before its backup has shown that it has not asked.
    PutsBackUnagreed,
    /// A side that runs alone puts its open record back without its claim.
    PutsBackUnclaimed,
    /// Whoever joins is armed before it has acknowledged what led to the outputs that have left.
    ArmsUnacknowledged,
    /// Whoever joins is armed before what was emitted before its copy has left.
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
    /// A primary that was away lets outputs go on what it was told before.
    TrustsOldWords,
}

impl Mutant {
    /// Whether it is the one that was planted.
    #[cfg(test)]
    pub(crate) fn is(self, planted: Option<Mutant>) -> bool {
        planted == Some(self)
    }
}

//! Records as text: one `key: value` line each, in a fixed order, the kind and its version first.

use super::{
    ArbiterError, Claim, Close, FIRST_GENERATION, MemberId, Members, Nonce, OpenRecord,
    StartRecord, check_vm_name,
};
use std::fmt::Display;
use std::net::SocketAddr;
use std::str::Lines;

/// The version of the records' text.
const TEXT_VERSION: u64 = 1;

impl OpenRecord {
    /// The record as text.
    pub fn encode(&self) -> String {
        let backup = self.members.backup.map_or("none".into(), |m| m.to_string());
        write(
            ("lockstep-open", &self.vm, self.generation),
            &[
                ("primary", &self.members.primary),
                ("backup", &backup),
                ("nonce", &self.nonce),
                ("at-ns", &self.at),
            ],
        )
    }

    /// Reads its text, which must be this VM's and generation's.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(text: &str, vm: &str, generation: u64) -> Result<OpenRecord, ArbiterError> {
        let mut fields = Fields::start(text, ("lockstep-open", vm, generation))?;
        let primary = MemberId(fields.id("primary")?);
        let backup = match fields.text("backup")? {
            "none" => None,
            id => Some(MemberId(fields.hex(id)?)),
        };
        let nonce = Nonce(fields.id("nonce")?);
        let at = fields.number("at-ns")?;
        fields.end()?;
        let members = Members { primary, backup };
        Ok(OpenRecord {
            vm: vm.into(),
            generation,
            members,
            nonce,
            at,
        })
    }
}

impl Claim {
    /// Its text.
    pub fn encode(&self, vm: &str, generation: u64) -> String {
        let fields: [(&str, &dyn Display); 2] = [("claimant", &self.claimant), ("at-ns", &self.at)];
        write(("lockstep-claim", vm, generation), &fields)
    }

    /// Reads its text, which must be this VM's and generation's.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(text: &str, vm: &str, generation: u64) -> Result<Claim, ArbiterError> {
        let mut fields = Fields::start(text, ("lockstep-claim", vm, generation))?;
        let claimant = MemberId(fields.id("claimant")?);
        let at = fields.number("at-ns")?;
        fields.end()?;
        Ok(Claim { claimant, at })
    }
}

impl Close {
    /// Its text.
    pub fn encode(&self, vm: &str, generation: u64) -> String {
        let fields: [(&str, &dyn Display); 2] = [("member", &self.member), ("at-ns", &self.at)];
        write(("lockstep-close", vm, generation), &fields)
    }

    /// Reads its text, which must be this VM's and generation's.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(text: &str, vm: &str, generation: u64) -> Result<Close, ArbiterError> {
        let mut fields = Fields::start(text, ("lockstep-close", vm, generation))?;
        let member = MemberId(fields.id("member")?);
        let at = fields.number("at-ns")?;
        fields.end()?;
        Ok(Close { member, at })
    }
}

impl StartRecord {
    /// The record as text.
    pub fn encode(&self, vm: &str) -> String {
        let fields: [(&str, &dyn Display); 2] = [("listen", &self.listen), ("at-ns", &self.at)];
        write(("lockstep-start", vm, FIRST_GENERATION), &fields)
    }

    /// Parses the text of a record, which must be for this VM.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(text: &str, vm: &str) -> Result<StartRecord, ArbiterError> {
        let mut fields = Fields::start(text, ("lockstep-start", vm, FIRST_GENERATION))?;
        let listen = fields.address("listen")?;
        let at = fields.number("at-ns")?;
        fields.end()?;
        Ok(StartRecord { listen, at })
    }
}

/// The first lines of every record: kind, VM and generation.
type Head<'a> = (&'a str, &'a str, u64);

fn write((kind, vm, generation): Head, fields: &[(&str, &dyn Display)]) -> String {
    let mut text = format!("{kind}: {TEXT_VERSION}\nvm: {vm}\ngeneration: {generation}\n");
    for (key, value) in fields {
        text.push_str(&format!("{key}: {value}\n"));
    }
    text
}

/// Reads a record line by line.
struct Fields<'a> {
    lines: Lines<'a>,
    /// The number of the last line that was read, from 1.
    line: usize,
    found: &'a str,
}

impl<'a> Fields<'a> {
    fn start(text: &'a str, (kind, vm, generation): Head) -> Result<Fields<'a>, ArbiterError> {
        let mut fields = Fields {
            lines: text.lines(),
            line: 0,
            found: "",
        };
        let version = fields.number(kind)?;
        if version != TEXT_VERSION {
            return Err(fields.bad(format!("version {TEXT_VERSION}")));
        }
        let (found_vm, found_generation) = (fields.text("vm")?, fields.number("generation")?);
        check_vm_name(found_vm)?;
        if (found_vm, found_generation) != (vm, generation) {
            return Err(ArbiterError::WrongRecord {
                wanted: format!("generation {generation} of VM {vm}"),
                found: format!("generation {found_generation} of VM {found_vm}"),
            });
        }
        // A record appears as a whole or not at all. A text that does not end with a line's end is not
        // complete.
        if !text.ends_with('\n') {
            return Err(fields.bad("a record that ends with a whole line".into()));
        }
        Ok(fields)
    }

    fn text(&mut self, key: &str) -> Result<&'a str, ArbiterError> {
        self.line += 1;
        self.found = self.lines.next().unwrap_or("");
        match self.found.split_once(": ") {
            Some((found, value)) if found == key => Ok(value),
            _ => Err(self.bad(format!("{key}: …"))),
        }
    }

    fn number(&mut self, key: &str) -> Result<u64, ArbiterError> {
        let text = self.text(key)?;
        let number = text.parse::<u64>().ok().filter(|n| n.to_string() == text);
        number.ok_or_else(|| self.bad(format!("{key}: a number")))
    }

    fn id(&mut self, key: &str) -> Result<u128, ArbiterError> {
        let text = self.text(key)?;
        self.hex(text)
    }

    fn address(&mut self, key: &str) -> Result<SocketAddr, ArbiterError> {
        let text = self.text(key)?;
        let address = text.parse::<SocketAddr>().ok();
        let address = address.filter(|address| address.to_string() == text);
        address.ok_or_else(|| self.bad(format!("{key}: an address and a port")))
    }

    fn hex(&self, text: &str) -> Result<u128, ArbiterError> {
        let id = u128::from_str_radix(text, 16)
            .ok()
            .filter(|id| format!("{id:032x}") == text);
        id.ok_or_else(|| self.bad("an id of 32 hexadecimal digits".into()))
    }

    fn end(mut self) -> Result<(), ArbiterError> {
        self.line += 1;
        self.found = self.lines.next().unwrap_or("");
        if self.found.is_empty() && self.lines.next().is_none() {
            return Ok(());
        }
        Err(self.bad("the record's end".into()))
    }

    fn bad(&self, wanted: String) -> ArbiterError {
        ArbiterError::BadRecord {
            line: self.line,
            found: self.found.into(),
            wanted,
        }
    }
}

//! What the table says about a function.

use cryptoki_sys::*;

/// No function takes more words than this (C_UnwrapKeyAuthenticated).
pub(crate) const WORDS: usize = 10;

/// One argument, or a pointer and the length that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Session,
    Slot(Place),
    /// A handle, and what is answered when there is no such object.
    Object(Thing, CK_RV),
    /// A handle that is 0 where none is needed, and what is answered to any other.
    NoObject(CK_RV),
    Number(CK_ULONG),
    /// Data that is read, and its length.
    Bytes(Data),
    /// Text of 32 bytes.
    Label,
    Mechanism(Mechanism),
    /// Attributes that are read, and their count.
    Template(Template),
    /// Attributes that are filled in, and their count.
    Wanted,
    /// Where one value goes.
    Value,
    /// Where so many words go, and their count.
    Room(usize),
    /// Where bytes go, and a pointer to their length: the convention for output of variable length.
    Output,
    /// The same for a list of words, as long as the number says at most.
    List(usize),
    /// A pointer that may be NULL.
    Optional,
    /// A pointer that must be NULL.
    Reserved,
}

impl Argument {
    /// How many words it takes.
    pub(crate) fn words(self) -> usize {
        match self {
            Self::Bytes(_) | Self::Template(_) | Self::Wanted | Self::Room(_) | Self::Output | Self::List(_) => 2,
            _ => 1,
        }
    }

    /// The words that may not be NULL while the others are as they are. That a NULL mechanism cancels an operation is
    /// the business of the functions that begin one.
    pub(crate) fn never_null(self) -> &'static [usize] {
        match self {
            Self::Bytes(_) | Self::Template(_) | Self::Wanted => &[0],
            Self::Label | Self::Mechanism(_) | Self::Value | Self::Room(_) => &[0],
            Self::Output | Self::List(_) => &[1],
            Self::Session | Self::Slot(_) | Self::Object(..) | Self::NoObject(_) | Self::Number(_) => &[],
            Self::Optional | Self::Reserved => &[],
        }
    }
}

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Of the token that everything happens with.
    Token,
    /// Of a token whose sessions nobody needs.
    Other,
    /// Where the next token can be made.
    Free,
}

/// An object that the tests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Rsa,
    RsaPublic,
    Ec,
    EcPublic,
    Aes,
    Mac,
    /// A secret in memory that may be wrapped and digested.
    Secret,
    Data,
    /// Data that may be destroyed.
    Scrap,
}

/// Data for a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// No whole number of blocks.
    Text,
    /// Two blocks.
    Blocks,
    Pin,
    SoPin,
    /// What this function gives for its own arguments.
    From(&'static str),
}

/// A mechanism, with its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Sha256,
    RsaSha256,
    RsaPkcs,
    AesCbcPad,
    AesKeyGen,
    EcKeyPairGen,
    Ecdh,
}

/// A template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    Data,
    Label,
    AesKey,
    EcPublic,
    EcPrivate,
    Secret,
}

/// Who must be logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    User,
    SecurityOfficer,
    Nobody,
}

/// What a success does to the operation that a function belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Begins,
    Continues,
    Ends,
}

/// When a function works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Between C_Initialize and C_Finalize.
    Initialised,
    /// It is C_Initialize or C_Finalize.
    Itself,
    /// Always.
    Anytime,
    /// Never: this token has no use for it.
    Unsupported,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// Where it stands in CK_FUNCTION_LIST_3_2.
    pub(crate) offset: usize,
    pub(crate) arguments: &'static [Argument],
    /// What is called before it.
    pub(crate) after: &'static [&'static str],
    /// The operations it belongs to, by their flags in CK_MECHANISM_INFO.
    pub(crate) operations: CK_FLAGS,
    pub(crate) effect: Effect,
    /// Whether an error, other than CKR_BUFFER_TOO_SMALL, ends them.
    pub(crate) error_ends: bool,
    pub(crate) login: Login,
    /// What a valid call answers.
    pub(crate) answer: CK_RV,
    pub(crate) when: When,
    /// Whether the same call gives the same output again.
    pub(crate) repeats: bool,
}

impl Function {
    pub(crate) const fn new(name: &'static str, offset: usize, arguments: &'static [Argument]) -> Self {
        Self {
            name,
            offset,
            arguments,
            after: &[],
            operations: 0,
            effect: Effect::None,
            error_ends: false,
            login: Login::User,
            answer: CKR_OK,
            when: When::Initialised,
            repeats: true,
        }
    }

    /// It begins an operation.
    pub(crate) const fn begins(mut self, operation: CK_FLAGS) -> Self {
        (self.operations, self.effect) = (operation, Effect::Begins);
        self
    }

    /// It goes on with operations, and an error ends them.
    pub(crate) const fn continues(mut self, operations: CK_FLAGS, after: &'static [&'static str]) -> Self {
        (self.operations, self.effect, self.after, self.error_ends) = (operations, Effect::Continues, after, true);
        self
    }

    /// It ends an operation, by an error too.
    pub(crate) const fn ends(mut self, operation: CK_FLAGS, after: &'static [&'static str]) -> Self {
        (self.operations, self.effect, self.after, self.error_ends) = (operation, Effect::Ends, after, true);
        self
    }

    /// An error leaves its operations as they were: "the token is in the same state as it was in prior to the function
    /// call" (PKCS#11 3.2, "Functions"), where the function's own text says nothing else.
    pub(crate) const fn error_keeps(mut self) -> Self {
        self.error_ends = false;
        self
    }

    pub(crate) const fn logged_in(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    pub(crate) const fn answers(mut self, answer: CK_RV) -> Self {
        self.answer = answer;
        self
    }

    pub(crate) const fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    pub(crate) const fn unsupported(mut self) -> Self {
        (self.when, self.answer) = (When::Unsupported, CKR_FUNCTION_NOT_SUPPORTED);
        self
    }

    /// Its output is another one each time.
    pub(crate) const fn random(mut self) -> Self {
        self.repeats = false;
        self
    }

    /// Each argument with the place of its first word.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, Argument)> + '_ {
        self.arguments.iter().scan(0, |next, argument| {
            let word = *next;
            *next += argument.words();
            Some((word, *argument))
        })
    }

    /// Where its handle of a session is.
    pub(crate) fn session(&self) -> Option<usize> {
        self.parts().find(|(_, argument)| *argument == Argument::Session).map(|(word, _)| word)
    }

    /// Where its output is.
    pub(crate) fn output(&self) -> Option<usize> {
        let is_output = |argument: &Argument| matches!(argument, Argument::Output | Argument::List(_));
        self.parts().find(|(_, argument)| is_output(argument)).map(|(word, _)| word)
    }

    /// Where its mechanism is.
    pub(crate) fn mechanism(&self) -> Option<usize> {
        self.parts().find(|(_, argument)| matches!(argument, Argument::Mechanism(_))).map(|(word, _)| word)
    }

    /// Whether it is there, and works between C_Initialize and C_Finalize.
    pub(crate) fn works(&self) -> bool {
        matches!(self.when, When::Initialised | When::Anytime)
    }
}

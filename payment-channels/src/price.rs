use storage_core::channel::Amount;

/// What a call costs, and whether a client may pay more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Price {
    /// So much or more, and in any case something. All of it is charged. An [`Amount`] is such a price.
    AtLeast(Amount),
    /// So much and no more, as snet-daemon has it: the amount is what is authorized and the price together. A call for nothing then takes the
    /// payment that was made last, or the first one of 0, and nothing is written for it.
    Exactly(Amount),
}

impl Price {
    /// The price.
    pub fn amount(self) -> Amount {
        match self {
            Self::AtLeast(amount) | Self::Exactly(amount) => amount,
        }
    }

    /// Whether a commit writes nothing to the channel.
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::Exactly(Amount::ZERO)
    }
}

impl From<Amount> for Price {
    fn from(amount: Amount) -> Self {
        Self::AtLeast(amount)
    }
}

//! Arguments and printing. No logic.

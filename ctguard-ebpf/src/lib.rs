//! The data path of ctguard.
#![no_std]

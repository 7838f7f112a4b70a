//! `ctguard tune`, killed in the midst of everything it does, and under live traffic.

mod killed;
mod live;

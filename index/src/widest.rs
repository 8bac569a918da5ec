//! Loops compiled a second time for the vectors that most processors have, and the choice between the two at run time.
#![expect(
    unsafe_code,
    reason = "a function for newer processors is called where the processor was asked"
)]

/// Runs `kernel`, a loop that is inlined here, with the widest vectors of those that it is compiled for.
#[inline(always)]
pub(crate) fn widest<R>(kernel: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
        fn wide<R>(kernel: impl FnOnce() -> R) -> R {
            kernel()
        }

        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("popcnt")
        {
            // SAFETY: the processor has all features that the function is compiled for.
            return unsafe { wide(kernel) };
        }
    }
    kernel()
}

// SPDX-License-Identifier: GPL-2.0-only

//! Compiles the C++ shim and, with the feature `regenerate-bindings`, writes the bindings of
//! `include/` anew.

fn main() {
    println!("cargo:rerun-if-changed=include");
    println!("cargo:rerun-if-changed=src/server/shim.cc");
    #[cfg(feature = "regenerate-bindings")]
    bindings::write();

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include("include")
        .flag("-fvisibility=hidden")
        .flag("-fvisibility-inlines-hidden")
        // A unique symbol would keep the library mapped after UNINSTALL PLUGIN.
        .flag_if_supported("-fno-gnu-unique")
        .extra_warnings(true)
        .warnings_into_errors(true)
        .file("src/server/shim.cc")
        .compile("clone_shim");
}

#[cfg(feature = "regenerate-bindings")]
mod bindings {
    /// The place of the generated file, which is part of the repository.
    const BINDINGS: &str = "src/server/abi/bindings.rs";

    pub(crate) fn write() {
        bindgen::Builder::default()
            .header("include/server_abi.h")
            .clang_arg("-std=c11")
            .allowlist_file(".*(server|clone)_[a-z]+\\.h")
            // The functions of clone_engine.h are ours.
            .blocklist_function("clone_(capability|begin|copy|ack|end|apply|apply_begin|apply_end)")
            .blocklist_function("clone_engine_[a-z]+")
            // What an engine in C++ throws ends mysqld in the guard, instead of being undefined.
            .override_abi(bindgen::Abi::CUnwind, "clone_(begin|copy|apply|end|apply_begin)_fn")
            .default_visibility(bindgen::FieldVisibilityKind::PublicCrate)
            .default_macro_constant_type(bindgen::MacroTypeVariation::Signed)
            .raw_line("// SPDX-License-Identifier: GPL-2.0-only")
            .use_core()
            .derive_debug(false)
            .formatter(bindgen::Formatter::Prettyplease)
            .generate()
            .expect("include/server_abi.h is valid C")
            .write_to_file(BINDINGS)
            .expect("src/server/abi is writable");
    }
}

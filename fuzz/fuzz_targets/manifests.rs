//! Text that somebody applies: taken or refused, never with a panic; what was taken reads as it prints.
#![no_main]

use bluebird::api::manifest;
use bluebird_fuzz::seeds;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write(seeds::manifests), |text: &str| {
    let Ok(objects) = manifest::parse(text, "input.yaml") else { return };
    let printed = manifest::list_to_yaml(&objects);
    match manifest::parse(&printed, "printed.yaml") {
        Ok(again) => assert_eq!(again, objects, "{printed}"),
        Err(faults) => panic!("what is printed is refused: {faults}\n{printed}"),
    }
});

# A recipe for Nix: pkgs.callPackage ./package.nix { }
{
  lib,
  installShellFiles,
  rustPlatform,
}:

rustPlatform.buildRustPackage {
  pname = "ctguard";
  version = "0.1.0";

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ];

  cargoBuildFlags = [
    "--package"
    "ctguard"
  ];
  # The tests need root and network namespaces.
  doCheck = false;

  postInstall = ''
    cargo run --offline --package ctguard --features reference -- reference reference
    installManPage reference/man/*
    installShellCompletion --bash reference/completions/ctguard.bash
    installShellCompletion --fish reference/completions/ctguard.fish
    installShellCompletion --zsh reference/completions/_ctguard
    install -Dm644 -t $out/lib/systemd/system packaging/*.service
    substituteInPlace $out/lib/systemd/system/* --replace-fail /usr/bin/ctguard $out/bin/ctguard
    install -Dm644 packaging/ctguard.toml $out/share/ctguard/ctguard.toml
  '';

  meta = {
    description = "Early-drop guard for Linux machines that track connections";
    homepage = "https://github.com/ctguard/ctguard";
    license = with lib.licenses; [
      mit
      asl20
    ];
    platforms = lib.platforms.linux;
    mainProgram = "ctguard";
  };
}

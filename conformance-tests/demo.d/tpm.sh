# Software TPMs of our own.

software_tpm_tcti() { echo "swtpm:path=$1/socket"; }

# start_software_tpm FOLDER: its state, sockets and log are in FOLDER.
start_software_tpm() {
    local name
    name=$(basename "$1")
    mkdir -p "$1/state"
    [[ $name != tpm ]] || write_start_script "$1"
    quiet=yes background "$name" <<<"$(software_tpm_command "$1")"
    wait_until "the software TPM" tpm2_getrandom -T "$(software_tpm_tcti "$1")" --hex 1
}

software_tpm_command() {
    echo "swtpm socket --tpm2 --flags not-need-init,startup-clear --tpmstate dir=$1/state" \
        "--server type=unixio,path=$1/socket --ctrl type=unixio,path=$1/socket.ctrl --log file=$1/log,level=20"
}

# For going on by hand after the demo.
write_start_script() {
    { echo "#!/bin/sh" && echo "# Starts the demo's software TPM again." && echo "exec $(software_tpm_command "$1") --daemon"; } >"$folder/start-tpm"
    chmod +x "$folder/start-tpm"
}

# A TPM that loses power without this counts the PIN just used as an attack.
shut_down_software_tpm() { tpm2_shutdown -T "$(software_tpm_tcti "$1")" --clear >/dev/null 2>&1 || true; }

# How many commands reached the TPM so far; - when it is not ours.
tpm_commands() {
    if [[ $tcti ]]; then echo -; else grep -c SWTPM_IO_Read "$folder/tpm/log" || true; fi
}

# What chapters are written with: steps that show their command lines, run them and keep the score.

quiet=""            # yes: only failures are shown
current_chapter=""
steps=()            # one line per step: chapter, title, tool, TPM commands, result; separated by tabs
pids=() names=()    # what runs in the background, in the order of its start
ports=()            # what free_ports gave away

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold="" dim="" plain=""; fi

say() { [[ $quiet ]] || printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
note() { [[ $quiet ]] || printf '%s  %s%s\n' "$dim" "$1" "$plain"; }
next() { printf '    %s\n' "$1"; }

# chapter TITLE
chapter() { [[ $quiet ]] || printf '\n%s=== %s ===%s\n' "$bold" "$1" "$plain"; }

# step TITLE TOOL: the command lines on standard input must succeed.
step() { perform ok "$@"; }
# refused TITLE TOOL: they must fail, and that is the point.
refused() { perform refused "$@"; }

perform() {
    local wanted=$1 title=$2 tool=$3 lines before output=$folder/log/output result
    lines=$(cat)
    say "$title"
    [[ $quiet ]] || show_lines "$lines"
    before=$(tpm_commands)
    if timeout 120 bash -euo pipefail -c "$lines" >"$output" 2>&1 </dev/null; then result=ok; else result=refused; fi
    [[ $quiet ]] || sed -e 's/^/    /' -e '$a\' "$output"
    if [[ $result != "$wanted" ]]; then
        quiet=""
        fail "$title" "$lines" "$output"
    fi
    steps+=("$current_chapter"$'\t'"$title"$'\t'"$tool"$'\t'"$(difference "$before" "$(tpm_commands)")"$'\t'"$result")
}

# A prompt before each command, none before the lines that continue one.
show_lines() {
    local line open=""
    while IFS= read -r line; do
        if [[ $open ]]; then printf '  %s%s%s\n' "$bold" "$line" "$plain"; else printf '  $ %s%s%s\n' "$bold" "$line" "$plain"; fi
        open+=$line$'\n'
        if [[ $line != *\\ ]] && bash -n <<<"$open" 2>/dev/null; then open=""; fi
    done <<<"$1"
}

# background NAME: runs the command line on standard input until the demo ends; its output goes to log/NAME.
background() {
    local line
    line=$(cat)
    [[ $quiet ]] || show_lines "$line &"
    bash -c "exec $line" >"$folder/log/$1" 2>&1 </dev/null &
    pids+=($!) names+=("$1")
}

# end_background NAME: ends what was started under this name.
end_background() {
    local i
    for i in "${!pids[@]}"; do
        [[ ${names[i]} == "$1" ]] || continue
        kill "${pids[i]}" 2>/dev/null && wait "${pids[i]}" 2>/dev/null || true
        unset "pids[i]" "names[i]"
    done
    pids=("${pids[@]}") names=("${names[@]}")
}

# wait_until WHAT COMMAND...: waits up to ten seconds for COMMAND to succeed.
wait_until() {
    local what=$1 tries=200
    shift
    until "$@" >/dev/null 2>&1; do
        ((tries--)) || fail "waiting for $what" "$*" /dev/null
        sleep 0.05
    done
}

listens() { (: <"/dev/tcp/127.0.0.1/$1"); }

# free_ports NAME...: exports ports that nobody listens at, each another one.
free_ports() {
    local name port
    for name; do
        while port=$((20000 + RANDOM % 12000)) && { [[ " ${ports[*]} " == *" $port "* ]] || listens "$port" 2>/dev/null; }; do :; done
        ports+=("$port")
        export "$name=$port"
    done
}

# fill TEMPLATE NAME=VALUE...: the template with each @NAME@ replaced.
fill() {
    local text pair
    text=$(<"$here/demo.d/$1")
    for pair in "${@:2}"; do text=${text//"@${pair%%=*}@"/"${pair#*=}"}; done
    printf '%s\n' "$text"
}

running() {
    local i
    for i in "${!pids[@]}"; do printf '%s (%s) ' "${names[i]}" "${pids[i]}"; done
}

# Ends what runs in the background, last started first; a software TPM is told before.
stop_all() {
    local i
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        [[ ${names[i]} != tpm* ]] || shut_down_software_tpm "$folder/${names[i]}"
        kill "${pids[i]}" 2>/dev/null && wait "${pids[i]}" 2>/dev/null || true
    done
    pids=() names=()
    p11kit_remove_from_system
}

difference() { if [[ $1 == - ]]; then echo -; else echo $(($2 - $1)); fi; }

summary() {
    local number=0 chapter title tool commands result
    printf '\n%s%3s  %-8s %-66s %-28s %12s  %s%s\n' "$bold" "" chapter step tool "TPM commands" result "$plain"
    for line in "${steps[@]}"; do
        IFS=$'\t' read -r chapter title tool commands result <<<"$line"
        [[ -z $only || $chapter == "$only" ]] || continue
        printf '%3d  %-8s %-66s %-28s %12s  %s\n' $((++number)) "$chapter" "$title" "$tool" "$commands" "$result"
    done
}

fail() {
    printf '\n%sFAILED in chapter %s: %s%s\n' "$bold" "$current_chapter" "$1" "$plain"
    show_lines "$2"
    sed 's/^/    /' "$3"
    exit 1
}

failed_at_exit() {
    stop_all
    if [[ $1 != 0 && $folder ]]; then echo "The folder is left for a look: $folder (servers' output in log/)"; fi
}

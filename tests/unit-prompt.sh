# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# questions on a terminal, which script(1) makes

# typed KEYS TEXT COMMAND...: types KEYS (for printf) once TEXT is on the terminal
typed() {
	keys=$1 shown=$2
	shift 2
	cmd="$* (typed: $keys)"
	rc=0
	: >"$err"
	: >"$out"
	# shellcheck disable=SC2059,SC2094
	{
		k=0
		while [ "$k" -lt 100 ] && ! grep -qF -- "$shown" "$out"; do
			k=$((k + 1))
			sleep 0.1
		done
		printf "$keys"
		sleep 0.3
	} | timeout 30 script -qec "'$LIMACTL' $*" /dev/null >"$out" 2>"$err" || rc=$?
}

test_prompt() {
	begin prompt
	if ! have script; then
		skip 'questions on a terminal' 'script is not installed'
		return
	fi
	buildfakes
	printf 'images: [location: /etc/profile]\ndisk: 1M\nmounts: []\n' >"$HOME/t.yaml"
	cd "$HOME" || return
	unset VISUAL EDITOR

	typed '\n' Exit create --name a t.yaml
	status 0
	outhas '? Creating an instance `a`'
	outhas '> Proceed with the current configuration'
	outhas '  Choose another template (docker, podman, archlinux, fedora, ...)'
	outhas 'Run `limactl start a` to start the instance.'
	holds [ -f "$LIMA_HOME/a/lima.yaml" ]
	ok 'create: the menu, and to proceed'
	typed '\033[A\n' Exit create --name b t.yaml
	status 1
	outhas 'Choosing to exit'
	fails [ -e "$LIMA_HOME/b" ]
	typed '4\n' Exit create --name b t.yaml
	status 1
	outhas 'Choosing to exit'
	typed 'xi\n' Exit create --name b t.yaml
	status 1
	outhas 'Choosing to exit'
	ok 'create: to exit, by arrow, number and filter'
	# a window of four rows: no more lines are drawn than it has
	if have expect; then
		expect -c 'set timeout 20; spawn -noecho sh -c "stty rows 4 cols 60; exec '"$LIMACTL"' create --name b t.yaml"
			expect -re {type to f} {send "\033\[B"}; expect -re {type to f} {send "\003"}; expect eof' >"$out" 2>"$err" </dev/null || :
		outhas '> Open an editor'
		outlacks 'Choose another'
		outlacks Exit
		ok 'a menu in a small window'
	fi
	for keys in '\003' '\004' 'zzz\n\003'; do
		typed "$keys" Exit start --name b t.yaml
		status 1
		outhas 'Interrupted by user'
	done
	fails [ -e "$LIMA_HOME/b" ]
	ok 'start: the menu is left by ^C'

	cat >"$HOME/ed" <<-'END'
		#!/bin/sh
		cp "$1" seen
		[ -t 0 ] && [ -t 1 ] && echo '# the terminal is ours' >>seen
		case $DO in
		add) echo 'cpus: 3' >>"$1";;
		empty) : >"$1";;
		bad) echo 'cpus: [' >>"$1";;
		esac
	END
	chmod +x "$HOME/ed"
	EDITOR=$HOME/ed
	export EDITOR DO
	mkdir -p "$LIMA_HOME/_config"
	echo 'memory: 1GiB' >"$LIMA_HOME/_config/default.yaml"
	DO=add
	typed '\016\n' Exit create --name b --memory=2 t.yaml
	status 0
	filehas seen '# Change what is below'
	filehas seen '# the terminal is ours'
	filehas seen '# memory: 1GiB'
	filehas seen 'memory: 2GiB'
	filehas "$LIMA_HOME/b/lima.yaml" 'cpus: 3'
	filelacks "$LIMA_HOME/b/lima.yaml" '# Change'
	ok 'create: the editor'
	DO=empty
	typed '2\n' Exit create --name c t.yaml
	status 1
	outhas 'Aborting, as requested by saving the file with empty content'
	DO=bad
	typed '2\n' Exit create --name c t.yaml
	status 1
	outhas 'the YAML is invalid, saved the buffer as `lima.REJECTED.yaml`: '
	filehas lima.REJECTED.yaml 'cpus: ['
	fails [ -e "$LIMA_HOME/c" ]
	ok 'create: an empty and a broken text'
	rm "$LIMA_HOME/_config/default.yaml"

	DO=
	typed '3\nalmalinux-1\n4\n' Exit create --name c t.yaml
	status 1
	outhas '? Choose a template'
	outhas 'almalinux-10'
	outhas 'Choosing to exit'
	typed '3\nalmalinux-10\n2\n' Exit create --name c --cpus=7 --set '.images=[]' t.yaml
	status 1
	filehas seen 'cpus: 7'
	filelacks seen '/etc/profile'
	ok 'create: another template, with the flags again'

	k=d
	for f in --tty=false -y; do
		typed '' 'to start' "$f" create --name "$k" t.yaml
		status 0
		outlacks 'Creating an instance'
		k=g
	done
	run script -qec "'$LIMACTL' create --name e '$HOME/t.yaml' </dev/null" /dev/null
	status 0
	outhas 'Terminal is not available, proceeding without opening an editor'
	lc --tty create --name f "$HOME/t.yaml"
	status 0
	errhas 'Terminal is not available'
	ok 'without a terminal, or --tty=false: no menu'

	typed 'n\n' '(Y/n)' shell d true
	status 1
	outhas '? Do you want to start the instance now? (Y/n)'
	outhas 'instance `d` is stopped, run `limactl start d`'
	typed '\003' '(Y/n)' shell d true
	status 130
	outhas 'Interrupted by user'
	typed '' stopped shell --start=false d true
	status 1
	outlacks '(Y/n)'
	typed '' stopped --tty=false shell d true
	outlacks '(Y/n)'
	feed 'y
'
	lc shell --tty=true d true
	status 1
	errlacks '(Y/n)'
	errhas 'is stopped'
	PATH=$fakes:$realpath
	plan "$goodboot"
	# the status line: as long as the terminal is wide
	for w in 40 12; do
		plan 'serial Linux version 6.1'
		run script -qec "stty cols $w rows 24; NO_COLOR=1 '$LIMACTL' --tty=false start --timeout=1500ms d" /dev/null
		status 1
		tr '\r' '\n' <"$out" | grep -oE "$(printf '\033')\\[K +[0-9]+ s .*" >"$T/lines" || :
		filehas "$T/lines" ' s '
		longest=$(awk '{ if (length($0) - 3 > n) n = length($0) - 3 } END { print n + 0 }' "$T/lines")
		[ "$longest" -lt "$w" ] || bad "$longest of $w columns"
		[ "$w" = 12 ] || filehas "$T/lines" ' s kernel'
		lc stop -f d
	done
	plan 'serial Linux version 6.1'
	run script -qec "'$LIMACTL' start --tty=false --log-format=json --timeout=1500ms d" /dev/null
	outhas '"level":"info"'
	outlacks ' s kernel'
	lc stop -f d
	plan "$goodboot"
	ok 'start: the status line, in a narrow terminal, without colours, and not with JSON'
	typed '\n' '(Y/n)' shell d true
	outhas 'Starting the instance `d`'
	outlacks READY
	lc stop -f d
	ok 'shell: the question on a stopped instance'

	# an editor that stays open keeps others waiting
	PATH=$realpath
	printf '#!/bin/sh\n: >open\nsleep 2\necho "cpus: 5" >>"$1"\n' >"$HOME/ed"
	typed 'n\n' '(Y/n)' edit d &
	w=$!
	await 10 [ -e open ]
	limit=20
	"$LIMACTL" --tty=false edit --memory=3 d >"$T/second" 2>&1 </dev/null
	wait "$w"
	filehas "$T/second" 'Waiting for another limactl to finish with instance d'
	filehas "$LIMA_HOME/d/lima.yaml" 'cpus: 5'
	filehas "$LIMA_HOME/d/lima.yaml" 'memory: 3GiB'
	ok 'edit holds the lock while the editor is open'
	unset EDITOR DO
	cd "$OLDPWD" || return
}

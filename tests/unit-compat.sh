# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# What scripts written for limactl rely on: texts, streams and shapes.

# narrow COLUMNS ARGS...: list on a terminal of that width
narrow() {
	c=$1
	shift
	run script -qec "stty cols $c; '$LIMACTL' list $*" /dev/null
	tr -d '\r' <"$out" >"$out.1"
	mv "$out.1" "$out"
}

test_compat() {
	begin compat

	# create
	mk foo
	status 0
	noout
	logged info 'Terminal is not available, proceeding without opening an editor'
	logged info 'Run `limactl start foo` to start the instance.'
	ok 'create says what it does, on stderr'
	printf '%s\n' "$tiny" >"$T/foo.yaml"
	for w in "$T/foo.yaml" "file://$T/foo.yaml" foo; do
		lc create "$w"
		fatal 'instance `foo` already exists'
	done
	lc start "$T/foo.yaml"
	fatal "instance \`foo\` already exists (\`$LIMA_HOME/foo\`)"
	ok 'create and start of a template whose instance exists'

	# list
	lc ls --list-fields
	status 0
	noerr
	same "$(tr '\n' ' ' <"$out")" 'AdditionalDisks Arch AutoStartedIdentifier CPUs Config Dir Disk DriverPID Errors HostAgentPID Hostname LimaVersion Memory Message Name Networks Param Protected SSHAddress SSHConfigFile SSHLocalPort Status VMType '
	lc ls --list-fields --format json
	fatal 'option --list-fields conflicts with option --format'
	ok 'list --list-fields'
	if have script; then
		for w in '79:STATUS SSH CPUS MEMORY DISK' '80:STATUS SSH CPUS MEMORY DISK DIR' '88:STATUS SSH ARCH CPUS MEMORY DISK DIR' '96:STATUS SSH VMTYPE ARCH CPUS MEMORY DISK DIR'; do
			narrow "${w%%:*}" foo
			same "$(head -n 1 "$out" | tr -s ' ')" "NAME ${w#*:}"
		done
		narrow 40 --all-fields foo
		same "$(head -n 1 "$out" | tr -s ' ')" 'NAME STATUS SSH VMTYPE ARCH CPUS MEMORY DISK DIR'
		ok 'list in a narrow terminal'
	else
		skip 'list in a narrow terminal' 'no script(1)'
	fi
	lc delete foo
	status 0

	# log lines
	lc create "$T/none.yaml"
	fatalhas "none.yaml: no such file or directory"
	lc create "$T"
	fatalhas ': is a directory'
	ok 'system errors are in lower case'
	if have script; then
		e=$(printf '\033')
		run script -qec "'$LIMACTL' stop nope 2>&1" /dev/null
		outhas "${e}[31mFATA${e}[0m[0000] open"
		run script -qec "NO_COLOR=1 '$LIMACTL' stop nope 2>&1" /dev/null
		outhas 'FATA[0000] open'
		run script -qec "TERM=dumb '$LIMACTL' stop nope 2>&1" /dev/null
		outhas 'level=fatal msg="open'
		ok 'log lines on a terminal, NO_COLOR and TERM=dumb'
	else
		skip 'log lines on a terminal' 'no script(1)'
	fi
}

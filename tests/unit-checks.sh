# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# checks: what a start does between the end of the boot and READY

test_checks() {
	begin checks
	buildfakes
	PATH=$fakes:$realpath
	h=$T/kube/conf
	# the fake ssh prints its last word: the shell that a script is for
	mk dev "{images: [location: /etc/profile], disk: 1M, mounts: [], param: {a: \"it's\"}, message: 'see {{.Dir}}',
	  probes: [{script: \"#!/bin/bash -e\\ntrue {{.Param.a}}\\n\", description: first}, {script: \"#!/bin/sh\\n\"}],
	  copyToHost: [{guest: /etc/conf, host: \"$h\", deleteOnStop: true}]}"
	status 0
	errlacks 'no effect'
	plan "$goodboot"
	lc start --tty=false dev
	status 0
	errhas 'Waiting for the optional requirement 1 of 2: `first`'
	errhas 'Waiting for the optional requirement 2 of 2: `user probe 2/2`'
	errhas 'The optional requirement 2 of 2 is satisfied'
	errhas "Copying config from /etc/conf to $h"
	same "$(cat "$h")" sh
	mode "$h" 600
	mode "$T/kube" 700
	errhas "see $LIMA_HOME/dev"
	ok 'probes run, then files are copied'
	lc stop dev
	status 0
	fails test -e "$h"
	ok 'deleteOnStop'

	: >"$T/file"
	mk two "{images: [location: /etc/profile], disk: 1M, mounts: [], copyToHost: [{guest: /a, host: \"$T/file/b\"}, {guest: /a, host: \"$h\"}]}"
	plan "$goodboot"
	lc start --tty=false two
	status 1
	errhas "failed to copy \`/a\` of the guest to \`$T/file/b\`: it cannot be written"
	errhas DEGRADED
	same "$(cat "$h")" sh
	lc stop -f two
	holds test -e "$h"
	rm -r "$T/kube" "$T/file"
	ok 'a file that cannot be copied degrades the start, and the next one is copied'
	lc delete -f dev two

	mk dev '{images: [location: /etc/profile], disk: 1M, mounts: [], probes: [{script: "#!/bin/false", hint: look there}]}'
	plan 'serial lima-ssh-ready iid-1
serial lima-provision-failed system 00000000 6
serial lima-provision-output it is not to be had
serial lima-boot-done iid-1 1'
	limit=60
	lc start --tty=false dev
	status 1
	errhas 'A provision script failed (mode, number, status): system 00000000 6'
	errhas 'its output: it is not to be had'
	errhas 'failed to satisfy the optional requirement 1 of 1 `user probe 1/1`: look there: its script exited with status 1'
	errhas DEGRADED
	ok 'what a provision script that failed was to bring is not waited for for minutes'
	lc delete -f dev
	finish
}

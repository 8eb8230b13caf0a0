# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# Disks of their own in a guest, probes, files copied to the host, and a guest
# that does not heed the power button.

test_disks() {
	beginguest disks gd
	for w in data:1GiB sw:64MiB bare:16MiB; do
		lc disk create "${w%:*}" --size "${w#*:}"
		status 0
	done
	cat >"$HOME/gd.yaml" <<-END
		images: [{location: "$image"}]
		cpus: 2
		memory: 1GiB
		disk: 10GiB
		mounts: []
		containerd: {user: false}
		param: {word: "b a'r"}
		additionalDisks:
		- {name: data, fsArgs: ["-m", "0"]}
		- {name: sw, fsType: swap}
		- {name: bare, format: false}
		provision:
		- mode: system
		  script: |
		    #!/bin/sh
		    touch /mnt/lima-data/\$LIMA_CIDATA_NAME
		    (umask 077; echo secret >/root/conf)
		    (sleep 2; touch /run/late) >/dev/null 2>&1 &
		probes:
		- description: a file that comes late
		  script: |
		    #!/bin/bash
		    [ -e /run/late ] && [[ \$PARAM_word = "{{.Param.word}}" ]]
		  hint: look in /run
		copyToHost:
		- {guest: /root/conf, host: "{{.Dir}}/copied/conf", deleteOnStop: true}
	END
	limit=90
	lc start --tty=false --name "$vm" "$HOME/gd.yaml"
	status 0
	errhas 'The optional requirement 1 of 1 is satisfied'
	same "$(cat "$dir/copied/conf")" secret
	ok 'a probe is run until it succeeds, and a file of root is copied to the host'
	if [ "$rc" != 0 ]; then
		finish
		return
	fi
	guestsays "$vm" sudo ls --ignore=lost+found /mnt/lima-data
	guestsays /dev/vdc sh -c 'sed -n "s/ .*//;2p" /proc/swaps'
	guestsays 32768 cat /sys/block/vdd/size
	guestsays none sh -c 'sudo blkid /dev/vdd || echo none'
	lc disk ls --json data
	outhas "\"instance\":\"$vm\""
	ok 'disks are formatted and mounted, one is left as it is'

	sh_ sudo sh -c 'mkdir -p /etc/systemd/logind.conf.d && printf "[Login]\nHandlePowerKey=ignore\n" >/etc/systemd/logind.conf.d/x.conf && systemctl restart systemd-logind && sync'
	limit=90
	lc stop "$vm"
	status 0
	filehas "$dir/ha.stderr.log" 'The power button seems to have no effect; asking the guest through ssh'
	filelacks "$dir/ha.stderr.log" 'did not power off'
	fails test -e "$dir/copied/conf"
	ok 'a guest that ignores the power button is asked through ssh'

	lc disk resize data --size 2GiB
	status 0
	limit=90
	lc start "$vm"
	status 0
	guestsays "$vm" sudo ls --ignore=lost+found /mnt/lima-data
	guestsays yes sh -c 'set -- $(df -m --output=size /mnt/lima-data); test $2 -gt 1700 && echo yes'
	ok 'the next start: what is on a disk stays, and its file system grows'
	limit=60
	lc delete -f "$vm"
	status 0
	lc disk delete data sw bare
	status 0
	finish
}

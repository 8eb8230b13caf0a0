# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# containerd: of an archive, whose tools are stand-ins here, and of packages

test_engine() {
	beginguest engine eng
	mkdir -p "$T/ar/bin"
	printf '#!/bin/sh\necho stand-in\n' >"$T/ar/bin/nerdctl"
	cat >"$T/ar/bin/containerd-rootless-setuptool.sh" <<-'END'
		#!/bin/sh
		echo "$1" >>~/setup
		[ "$1" = install ] || exit 0
		mkdir -p ~/.config/systemd/user
		printf '[Service]\nExecStartPre=mkdir -p %%t/containerd\nExecStart=ssh-agent -D -a %%t/containerd/containerd.sock\n[Install]\nWantedBy=default.target\n' \
			>~/.config/systemd/user/containerd.service
	END
	chmod 755 "$T"/ar/bin/*
	tar -C "$T/ar" -czf "$T/ar.tgz" .
	cat >"$HOME/eng.yaml" <<-END
		images: [{location: "$image"}]
		cpus: 2
		memory: 1GiB
		disk: 10GiB
		mounts: []
		containerd: {user: true, archives: [{location: "$T/ar.tgz", arch: $host}]}
	END
	limit=120
	lc start --tty=false --name "$vm" "$HOME/eng.yaml"
	status 0
	errlacks 'no effect'
	errhas 'The guest is unpacking containerd and nerdctl'
	errhas 'The guest is using containerd of the archive of nerdctl'
	guestsays stand-in nerdctl
	guestsays "install
install-buildkit-containerd" cat setup
	ok 'containerd of the archive, set up by its own tool'
	limit=60
	lc stop "$vm"
	status 0
	limit=120
	lc start --tty=false "$vm"
	status 0
	errlacks unpacking
	guestsays 2 sh -c 'wc -l <setup; rm .config/systemd/user/containerd.service; sudo rm /usr/local/bin/containerd-*; sync'
	ok 'the next start unpacks nothing'
	limit=60
	lc stop "$vm"
	status 0
	rm "$dir/nerdctl-full.tgz"
	limit=120
	lc start --tty=false "$vm"
	status 0
	errhas "The guest is using containerd of the distribution's packages"
	sh_ sh -c 'ctr -a "/run/user/$(id -u)/containerd/containerd.sock" version'
	status 0
	outhas Server:
	ok 'containerd of the packages, without root'
	limit=60
	lc delete -f "$vm"
	status 0
	rm -r "$T/ar" "$T/ar.tgz"
	finish
}

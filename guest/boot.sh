#!/bin/sh
# boot.sh - make this guest the instance that its cidata disk describes.
#
# Runs as root at every boot, from the cidata disk: started by lima-boot.service
# on an image of mkimage.sh, by cloud-init on a stock image. Everything here is
# idempotent, and what is already right costs no fork: under emulation a fork
# with exec is 5 to 10 ms, a builtin next to nothing.
#
# early: what sshd needs (user, keys, host key, names). late: all the rest.
# With LIMA_BOOT_FORK=1 the first process ends after early, which lets sshd
# start, and a child does late; otherwise one process does both.
#
# A step that fails says so in a line "LIMA ..." and is remembered; the next
# steps still run.

# shellcheck disable=SC2015  # "a && b || fail": fail is meant for either
# shellcheck disable=SC2317  # functions that run_one calls by their name
# shellcheck disable=SC2154  # variables that an eval sets
set -u
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

mnt=${LIMA_CIDATA_MNT:-/mnt/lima-cidata}
status=0
changed=
restart_sshd=
recalled=
reports=
provision_log=/var/log/lima-provision.log
nl='
'

# log TEXT: to the kernel's log, from where it reaches console and journal
# before either of them has a daemon; to stderr where that is not possible.
log() {
	if [ -c /dev/kmsg ]; then
		printf '<3>LIMA %s\n' "$1" >/dev/kmsg
	else
		printf 'LIMA %s\n' "$1" >&2
	fi
}

fail() {
	status=1
	log "$1"
}

# console LINE: one write to each serial console there is. In the background,
# because opening or writing a line that nobody serves may block.
console() {
	for tty in /dev/ttyS0 /dev/ttyAMA0 /dev/hvc0; do
		[ -c "$tty" ] || continue
		{ printf '%s\n' "$1" >"$tty"; } 2>/dev/null &
	done
}

# env_file FILE: export each KEY=value line as it is. A value is data and may
# hold quotes, dollars and blanks, so it is never evaluated.
env_file() {
	while IFS= read -r line || [ -n "$line" ]; do
		key=${line%%=*}
		case $key in
		"$line" | '' | [!A-Za-z_]* | *[!A-Za-z0-9_]*) continue ;;
		PATH | IFS | PS4 | ENV | LD_*) continue ;;
		# what a shell has for itself ends it, what this script has breaks it
		UID | EUID | PPID | OPTIND | SHELLOPTS | BASH*) continue ;;
		mnt | nl | status | changed | restart_sshd | reports | provision_log | locked | mount_run | cloud_*) continue ;;
		esac
		export "$key=${line#*=}"
	done <"$1"
}

# slurp FILE: its text in $text, ending in a newline unless empty.
slurp() {
	text=
	[ -f "$1" ] || return 1
	while IFS= read -r line || [ -n "$line" ]; do
		text=$text$line$nl
	done <"$1"
}

# put FILE MODE OWNER TEXT: write a file by way of a new one beside it.
put() {
	changed=1
	rm -f "$1.lima~" &&
		(umask 077 && printf '%s' "$4" >"$1.lima~") &&
		chown "$3" "$1.lima~" && chmod "$2" "$1.lima~" &&
		mv -f "$1.lima~" "$1"
}

# --- accounts -----------------------------------------------------------------
# passwd, group and shadow are edited as text: useradd and usermod differ
# between distributions, refuse to touch a user with running processes, and
# take ten times as long. Locked as the shadow suite locks them.

lock_accounts() {
	[ -z "${locked-}" ] || return 0
	# A lock that is older than this boot (nothing else can run yet when
	# the unit starts us) would stop useradd for ever; take it over.
	for f in passwd group shadow gshadow; do
		(set -C; printf '%s' $$ >/etc/$f.lock) 2>/dev/null ||
			printf '%s' $$ >/etc/$f.lock
	done
	locked=1
}

unlock_accounts() {
	[ -n "${locked-}" ] || return 0
	rm -f /etc/passwd.lock /etc/group.lock /etc/shadow.lock /etc/gshadow.lock
	locked=
}

# edit_line FILE NAME LINE: replace NAME's line, or append LINE. The copy
# keeps mode, owner and security label.
edit_line() {
	lock_accounts
	out='' found=
	while IFS= read -r line || [ -n "$line" ]; do
		if [ "${line%%:*}" = "$2" ] && [ -z "$found" ]; then
			line=$3
			found=1
		fi
		out=$out$line$nl
	done <"$1"
	if [ -z "$found" ]; then
		printf '%s\n' "$3" >>"$1"
		return
	fi
	cp -a "$1" "$1.lima~" && printf '%s' "$out" >"$1.lima~" &&
		mv -f "$1.lima~" "$1"
}

# free_id FIRST LIST: the first number from FIRST on that is not in LIST
# (blank separated, with blanks at both ends); in $id.
free_id() {
	id=$1
	while case $2 in *" $id "*) true ;; *) false ;; esac; do
		id=$((id + 1))
	done
}

# move_uid: our uid belongs to another account of the image (stock images have
# a user with uid 1000; daemons have one below 1000). Files on mounts show our
# uid, so we need it: the other account keeps its name and files and gets a
# free uid of the same kind.
move_uid() {
	if [ "$uid" -lt 1000 ]; then free_id 200 "$uids"; else free_id 60100 "$uids"; fi
	log "moving user $holder from uid $uid to $id, for $user has that uid"
	edit_line /etc/passwd "$holder" "$holder:${holder_rest%%:*}:$id:${holder_rest#*:*:}" || return
	find / -xdev -user "$uid" -exec chown -h "$id" {} +
}

account() {
	user=${LIMA_CIDATA_USER-} uid=${LIMA_CIDATA_UID-}
	home=${LIMA_CIDATA_HOME:-/home/$user.linux}
	shell=${LIMA_CIDATA_SHELL:-/bin/bash}
	gecos=${LIMA_CIDATA_COMMENT-}
	gid=
	case $user in
	'' | root | -* | . | .. | *[!A-Za-z0-9._-]*)
		fail "cannot use the user name '$user'"
		user=
		return ;;
	esac
	case $uid in
	'' | 0* | *[!0-9]*)
		fail "cannot use the uid '$uid' for user $user"
		user=
		return ;;
	esac
	case $home in
	*:* | *"$nl"*) fail "cannot use the home '$home'"; home=/home/$user.linux ;;
	/*/*) ;;
	*) fail "cannot use the home '$home'"; home=/home/$user.linux ;;
	esac
	# These two would break the line, or chfn's idea of it.
	while case $gecos in *:*) true ;; *) false ;; esac; do
		gecos=${gecos%%:*}${gecos#*:}
	done
	if [ ! -x "$shell" ]; then
		[ "$shell" = /bin/bash ] || log "no shell $shell here: using /bin/sh"
		shell=/bin/sh
	fi

	have='' holder='' holder_rest='' uids=' '
	while IFS=: read -r name pass id pgid info dir sh; do
		uids="$uids$id "
		if [ "$name" = "$user" ]; then
			have=$name:$pass:$id:$pgid:$info:$dir:$sh
			old_uid=$id gid=$pgid pw=$pass
		elif [ "$id" = "$uid" ]; then
			holder=$name holder_rest=$pass:$id:$pgid:$info:$dir:$sh
		fi
	done </etc/passwd

	if [ -n "$holder" ] && ! move_uid; then
		fail "cannot take uid $uid from user $holder"
	fi
	if [ -z "$have" ]; then
		new_user
		return
	fi
	want=$user:$pw:$uid:$gid:$gecos:$home:$shell
	[ "$have" = "$want" ] && return
	edit_line /etc/passwd "$user" "$want" || { fail "cannot change user $user"; return; }
	if [ "$old_uid" != "$uid" ] && [ -d "$home" ]; then
		find "$home" -xdev -user "$old_uid" -exec chown -h "$uid" {} +
	fi
}

# A group of the user's name is its primary group; one that the image brought
# (staff, users, games) serves too. A new one has the uid's number if free.
new_user() {
	gids=' '
	while IFS=: read -r name _ id _; do
		gids="$gids$id "
		[ "$name" = "$user" ] && gid=$id
	done </etc/group
	lock_accounts
	if [ -z "$gid" ]; then
		id=$uid
		case $gids in *" $uid "*) free_id 1000 "$gids" ;; esac
		gid=$id
		printf '%s:x:%s:\n' "$user" "$gid" >>/etc/group ||
			{ fail "cannot add the group $user"; gid=100; }
		[ -f /etc/gshadow ] && printf '%s:!::\n' "$user" >>/etc/gshadow || :
	fi
	# "*": no password fits, but the account is not locked, which an sshd
	# without PAM would take for closed to keys as well.
	printf '%s:x:%s:%s:%s:%s:%s\n' "$user" "$uid" "$gid" "$gecos" "$home" "$shell" >>/etc/passwd &&
		edit_line /etc/shadow "$user" "$user:*:19000:0:99999:7:::" ||
		fail "cannot add the user $user"
}

# On our own image the user's manager starts with logind and not with the first
# session, which would wait for it.
linger() {
	[ -n "${LIMA_BOOT_FORK-}" ] && [ ! -e "/var/lib/systemd/linger/$user" ] || return 0
	mkdir -p /var/lib/systemd/linger && : >"/var/lib/systemd/linger/$user" ||
		fail "cannot let $user linger"
}

# Where the host agent links the user's forwarded ssh agent.
host_services() {
	[ -z "${LIMA_CIDATA_PLAIN-}" ] || return 0
	mkdir -p /run/host-services && chmod 700 /run/host-services && chown "$uid:$gid" /run/host-services ||
		fail 'cannot make /run/host-services'
}

# An account that other tools made may be locked with "!", which shuts key
# logins out too where sshd runs without PAM (Alpine).
unlock_password() {
	[ -f /etc/alpine-release ] || return 0
	slurp /etc/shadow
	case $nl$text in
	*"$nl$user:!:"* | *"$nl$user:!!:"* | *"$nl$user:!\*:"*) ;;
	*) return ;;
	esac
	rest=${text#*"$user":!*:}
	edit_line /etc/shadow "$user" "$user:*:${rest%%"$nl"*}"
}

# Ranges for rootless containers: large, and clear of the user's own uid.
subids() {
	start=524288
	[ "$uid" -ge 524288 ] && start=$((uid + 1))
	for f in /etc/subuid /etc/subgid; do
		if [ -f $f ]; then
			while IFS=: read -r name _; do
				[ "$name" = "$user" ] && continue 2
			done <$f
		fi
		printf '%s:%s:1073741824\n' "$user" "$start" >>$f
	done
}

home_dir() {
	if [ ! -d "$home" ]; then
		case ${home%/*} in
		'') ;;
		*) [ -d "${home%/*}" ] || mkdir -p "${home%/*}" ;;
		esac
		if [ -d /etc/skel ]; then
			cp -R /etc/skel "$home"
		else
			mkdir "$home"
		fi && chmod 700 "$home" && chown -R "$uid:$gid" "$home" ||
			fail "cannot make the home $home"
	else
		# Mount points below it, made before the user was, leave a home
		# that belongs to root.
		# shellcheck disable=SC3067  # dash and busybox have -O
		[ -O "$home" ] && find "$home" -xdev -exec chown -h "$uid:$gid" {} +
	fi
	for p in "/home/$user.linux" "/home/$user.guest"; do
		[ "$p" = "$home" ] || [ -e "$p" ] || [ -L "$p" ] ||
			ln -s "$home" "$p" || fail "cannot make the link $p"
	done
}

# Our keys stand in a block of their own; what the user added stays.
ssh_keys() {
	slurp "$mnt/authorized_keys" || { fail "no authorized_keys on the cidata disk"; return; }
	keys=$text
	dir=$home/.ssh file=$home/.ssh/authorized_keys
	# root would follow a link that the user made: not into the unknown.
	if [ -L "$dir" ] || [ -L "$file" ]; then
		log "$file is reached by a symbolic link: left as it is"
		return
	fi
	[ -d "$dir" ] || { mkdir -m 700 "$dir" && chown "$uid:$gid" "$dir"; } ||
		{ fail "cannot make $dir"; return; }
	old='' own='' skip=
	if [ -f "$file" ]; then
		while IFS= read -r line || [ -n "$line" ]; do
			old=$old$line$nl
			case $line in
			'# Lima BEGIN') skip=1; continue ;;
			'# Lima END') skip=; continue ;;
			esac
			[ -z "$skip" ] || continue
			# One that cloud-init wrote, or that became ours since.
			case $nl$keys in *"$nl$line$nl"*) [ -z "$line" ] || continue ;; esac
			own=$own$line$nl
		done <"$file"
	fi
	new="# Lima BEGIN$nl$keys# Lima END$nl$own"
	[ "$old" = "$new" ] || put "$file" 600 "$uid:$gid" "$new" ||
		fail "cannot write $file"
}

# By number, for sudoers has its own idea of special characters in names.
sudo_rule() {
	[ -d /etc/sudoers.d ] || { log "no /etc/sudoers.d: $user gets no sudo"; return; }
	rule="#$uid ALL=(ALL:ALL) ALL$nl"
	[ -n "${LIMA_CIDATA_PASSWORDLESS_SUDO-}" ] && rule="#$uid ALL=(ALL:ALL) NOPASSWD:ALL$nl"
	slurp /etc/sudoers.d/90-lima
	[ "$text" = "$rule" ] || put /etc/sudoers.d/90-lima 440 0:0 "$rule" ||
		fail "cannot write /etc/sudoers.d/90-lima"
}

# --- names, keys, environment -------------------------------------------------

host_name() {
	host=${LIMA_CIDATA_HOSTNAME-}
	[ -n "$host" ] || return 0
	now=
	read -r now </proc/sys/kernel/hostname
	[ "$now" = "$host" ] || { printf '%s\n' "$host" >/proc/sys/kernel/hostname; } 2>/dev/null ||
		hostname "$host" || fail "cannot set the host name $host"
	slurp /etc/hostname
	[ "$text" = "$host$nl" ] || printf '%s\n' "$host" >/etc/hostname ||
		fail "cannot write /etc/hostname"
}

etc_hosts() {
	old='' new='' seen=
	while IFS= read -r line || [ -n "$line" ]; do
		old=$old$line$nl
		case $line in
		*'# by limactl' | *'# lima network' | *[" 	"]host.lima.internal*) continue ;;
		127.0.1.1[" 	"]*"${host:-/}"*) seen=1 ;;
		esac
		new=$new$line$nl
	done </etc/hosts
	[ -n "$seen" ] || [ -z "$host" ] || new="${new}127.0.1.1 $host # by limactl$nl"
	[ -z "${LIMA_CIDATA_SLIRP_GATEWAY-}" ] ||
		new="$new$LIMA_CIDATA_SLIRP_GATEWAY host.lima.internal # by limactl$nl"
	if slurp "$mnt/hosts"; then
		while [ -n "$text" ]; do
			new="$new${text%%"$nl"*}$nl"
			text=${text#*"$nl"}
		done
	fi
	# In place: the file is a bind mount in some images.
	[ "$old" = "$new" ] || printf '%s' "$new" >/etc/hosts || fail "cannot write /etc/hosts"
}

# The host made the key and pins it, so ours must be the one sshd shows.
host_key() {
	slurp "$mnt/ssh_host_ed25519_key" || return 0
	key=$text
	slurp /etc/ssh/ssh_host_ed25519_key
	if [ "$text" != "$key" ]; then
		slurp "$mnt/ssh_host_ed25519_key.pub"
		mkdir -p /etc/ssh && rm -f /etc/ssh/ssh_host_ed25519_key &&
			(umask 077 && printf '%s' "$key" >/etc/ssh/ssh_host_ed25519_key) &&
			printf '%s' "$text" >/etc/ssh/ssh_host_ed25519_key.pub ||
			{ fail "cannot install the ssh host key"; return; }
		restart_sshd=1
	fi
	# Alpine's sshd forbids forwarding, which every port forward needs.
	conf="AcceptEnv COLORTERM$nl"
	[ -f /etc/alpine-release ] && conf="${conf}AllowTcpForwarding yes$nl"
	file=/etc/ssh/sshd_config.d/10-acceptenv-colorterm.conf
	if [ -d /etc/ssh/sshd_config.d ]; then
		slurp $file
		[ "$text" = "$conf" ] && return
		printf '%s' "$conf" >$file
	elif [ -f /etc/ssh/sshd_config ]; then
		# An sshd without drop-ins: the first word on an option wins.
		slurp /etc/ssh/sshd_config
		case $text in "$conf"*) return ;; esac
		printf '%s' "$conf$text" >/etc/ssh/sshd_config
	else
		return 0
	fi || fail "cannot configure sshd"
	restart_sshd=1
}

# networks: the NICs beside eth0, by their addresses. An image with cloud-init
# has the same from network-config.
networks() {
	i=0
	while [ "$i" -lt "${LIMA_CIDATA_NETWORKS:-0}" ]; do
		mac='' nic=''
		eval "mac=\${LIMA_CIDATA_NETWORK_${i}_MAC-} nic=\${LIMA_CIDATA_NETWORK_${i}_INTERFACE-} addr=\${LIMA_CIDATA_NETWORK_${i}_ADDRESS-}"
		i=$((i + 1))
		dev=
		for d in /sys/class/net/*; do
			a=
			[ -r "$d/address" ] && read -r a <"$d/address"
			[ "$a" != "$mac" ] || dev=${d##*/}
		done
		if [ -z "$dev" ]; then
			fail "no network device has the address $mac"
			continue
		fi
		if [ -n "$addr" ] && [ -d /etc/systemd/network ] && [ ! -d /etc/cloud ]; then
			new="[Match]${nl}MACAddress=$mac${nl}[Link]${nl}RequiredForOnline=no${nl}[Network]${nl}Address=$addr${nl}KeepConfiguration=yes$nl"
			slurp "/etc/systemd/network/10-$nic.network"
			[ "$text" = "$new" ] || put "/etc/systemd/network/10-$nic.network" 644 0:0 "$new" ||
				fail "cannot write /etc/systemd/network/10-$nic.network"
		fi
		if [ "$dev" != "$nic" ]; then
			ip link set "$dev" down && ip link set "$dev" name "$nic" ||
				fail "cannot rename the network device $dev to $nic"
		fi
		[ -z "$addr" ] || ip addr replace "$addr" broadcast + dev "$nic" && ip link set "$nic" up ||
			fail "cannot set up the network device $nic"
	done
}

etc_environment() {
	block=
	slurp "$mnt/etc_environment" && block=$text
	old='' new='' skip=
	if [ -f /etc/environment ]; then
		while IFS= read -r line || [ -n "$line" ]; do
			old=$old$line$nl
			case $line in
			'#LIMA-START') skip=1 ;;
			'#LIMA-END') skip= ;;
			*) [ -n "$skip" ] || new=$new$line$nl ;;
			esac
		done </etc/environment
	fi
	new=$new$block
	[ "$old" = "$new" ] || printf '%s' "$new" >/etc/environment ||
		fail "cannot write /etc/environment"
}

# --- the guest agent ----------------------------------------------------------

# guest_agent_service PROGRAM: have the init system start it now and at every
# boot, and again when it dies. It waits for sshd alone: basic.target comes
# seconds later in an emulated guest.
guest_agent_service() {
	if [ -d /run/systemd/system ]; then
		unit=/etc/systemd/system/lima-guestagent.service
		unit_text="[Unit]
Description=lima guest agent
DefaultDependencies=no
After=local-fs.target ssh.service sshd.service
Before=shutdown.target
Conflicts=shutdown.target
StartLimitIntervalSec=0

[Service]
ExecStart=$1 daemon
Restart=always
OOMPolicy=continue
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"
		# A unit that systemd has not seen yet needs no daemon-reload.
		slurp $unit && [ "$text" != "$unit_text" ] && reload=1 || reload=
		printf '%s' "$unit_text" >$unit &&
			mkdir -p /etc/systemd/system/multi-user.target.wants &&
			ln -sf $unit /etc/systemd/system/multi-user.target.wants/lima-guestagent.service || return
		[ -z "$reload" ] || systemctl daemon-reload
		systemctl --no-block restart lima-guestagent.service
	elif [ -x /sbin/openrc-run ]; then
		printf '%s\n' '#!/sbin/openrc-run' 'supervisor=supervise-daemon' "command=$1" \
			'command_args=daemon' 'description="lima guest agent"' >/etc/init.d/lima-guestagent &&
			chmod 755 /etc/init.d/lima-guestagent &&
			rc-update -q add lima-guestagent default && rc-service -q lima-guestagent restart
	else
		(while :; do "$1" daemon; sleep 1; done) </dev/null >/dev/null 2>&1 &
	fi
}

# Installed when it is not the one that is there; on later boots nothing is
# done, for the init system knows it. In plain mode there is none.
guest_agent() {
	prog=${LIMA_CIDATA_GUEST_INSTALL_PREFIX:-/usr/local}/bin/lima-guestagent
	file=/var/lib/lima-boot/guestagent
	if [ ! -f "$mnt/lima-guestagent" ]; then
		[ -f $file ] || return 0
		rm -f $file
		if [ -d /run/systemd/system ]; then
			systemctl --no-block disable --now lima-guestagent.service
		elif [ -x /sbin/openrc-run ]; then
			rc-update -q del lima-guestagent default && rc-service -q lima-guestagent stop
		fi >/dev/null 2>&1 || fail "cannot stop the guest agent"
		return
	fi
	[ -d /sys/class/virtio-ports ] || modprobe -q virtio_console ||
		log "no virtio_console in this guest's kernel: ports are not forwarded"
	slurp $file
	if [ "$text" = "$LIMA_CIDATA_GUESTAGENT $prog$nl" ] && [ -x "$prog" ]; then
		[ -d /run/systemd/system ] || [ -x /sbin/openrc-run ] || guest_agent_service "$prog"
		return
	fi
	changed=1
	mkdir -p "${prog%/*}" /var/lib/lima-boot && rm -f "$prog" &&
		cp "$mnt/lima-guestagent" "$prog" && chmod 755 "$prog" &&
		guest_agent_service "$prog" &&
		printf '%s\n' "$LIMA_CIDATA_GUESTAGENT $prog" >$file || fail "cannot install the guest agent"
}

# --- additional disks -----------------------------------------------------------

# degraded TEXT: the host calls the instance degraded, for this reason
degraded() {
	status=1
	reports="${reports}lima-degraded $1$nl"
}

# serial_device SERIAL: the disk of that serial number, in $dev
serial_device() {
	for d in /sys/block/*; do
		serial=
		[ -r "$d/serial" ] && read -r serial <"$d/serial"
		[ "$serial" != "$1" ] || { dev=${d##*/}; return; }
	done
	return 1
}

# grow_part DISK NUMBER: a partition, used or not, up to the end of its disk
grow_part() {
	if command -v growpart; then growpart "/dev/$1" "$2"
	elif command -v sfdisk; then echo ', +' | sfdisk -q -N "$2" --no-reread --force "/dev/$1" && partx -u "/dev/$1"
	else log "the partition $2 of $1 is not grown: no growpart and no sfdisk in this image"
	fi >/dev/null 2>&1
}

# new_disk: a partition and a file system. What holds anything is left as it is.
new_disk() {
	# blkid says nothing of what it does not know, or takes for two things
	[ -z "$(blkid "/dev/$dev")$(dd if="/dev/$dev" bs=1M count=1 2>/dev/null | tr -d '\0' | head -c 1)" ] ||
		{ why='it has something that is no file system'; return 1; }
	log "formatting the additional disk $name ($fs)"
	part=$dev
	if command -v sfdisk >/dev/null && echo ';' | sfdisk -q --label gpt "/dev/$dev"; then
		part=${dev}1
		tries=0
		until [ -b "/dev/$part" ] || [ $((tries += 1)) -gt 50 ]; do sleep 0.1; done
	fi
	make=mkfs.$fs
	[ "$fs" != swap ] || make=mkswap
	command -v "$make" >/dev/null || case $fs in
	xfs) install_packages xfsprogs ;;
	btrfs) install_packages btrfs-progs ;;
	*) install_packages e2fsprogs ;;
	esac
	# the longest label is 16 bytes on ext4 and 12 on xfs
	label=lima-$name
	case $fs in xfs) max=12 ;; *) max=16 ;; esac
	[ ${#label} -le $max ] && label="-L $label" || label=
	# shellcheck disable=SC2086  # a word each
	why=$("$make" $args $label "/dev/$part" 2>&1) || { why="$make: ${why##*"$nl"}"; return 1; }
}

# use_disk: mount the disk of the variables set by disks
use_disk() {
	part=${dev}1
	[ -b "/dev/$part" ] || part=$dev
	have=$(blkid -s TYPE -o value "/dev/$part")
	case $have in *' TYPE="'*) have=${have##* TYPE=\"} have=${have%%\"*} ;; esac   # busybox knows no options
	[ -n "$have" ] || [ "$format" = true ] || return 0
	[ -n "$have" ] || { new_disk && have=$fs; } || return
	if [ "$have" = swap ]; then
		grep -q "^/dev/$part " /proc/swaps || swapon "/dev/$part" || { why='swapon fails'; return 1; }
		return
	fi
	mkdir -p "/mnt/lima-$name" && mount "/dev/$part" "/mnt/lima-$name" || { why='mount fails'; return 1; }
	read -r size <"/sys/block/$dev/size"
	was=
	[ -r "/var/lib/lima-boot/disk-$name" ] && read -r was <"/var/lib/lima-boot/disk-$name"
	[ "$size" != "$was" ] || return 0
	[ "$part" = "$dev" ] || grow_part "$dev" 1
	case $have in
	ext[234]) resize2fs "/dev/$part" ;;
	xfs) xfs_growfs "/mnt/lima-$name" ;;
	btrfs) btrfs filesystem resize max "/mnt/lima-$name" ;;
	esac >/dev/null 2>&1
	mkdir -p /var/lib/lima-boot && printf '%s\n' "$size" >"/var/lib/lima-boot/disk-$name"
}

disks() {
	[ -z "${LIMA_CIDATA_PLAIN-}" ] || return 0
	n=0
	while [ "$n" -lt "${LIMA_CIDATA_DISKS:-0}" ]; do
		eval "name=\$LIMA_CIDATA_DISK_${n}_NAME format=\$LIMA_CIDATA_DISK_${n}_FORMAT fs=\${LIMA_CIDATA_DISK_${n}_FSTYPE:-ext4} args=\$LIMA_CIDATA_DISK_${n}_FSARGS"
		case $(cat /proc/self/mounts) in *" /mnt/lima-$name "*) n=$((n + 1)); continue ;; esac
		why='it is not attached'
		serial_device "lima-disk-$n" && use_disk || degraded "the additional disk $name is not used: $why"
		n=$((n + 1))
	done
}

# --- mounts -------------------------------------------------------------------
# A directory of the host is a virtio-serial port: at its other end is an SFTP
# server that knows nothing else. Each mount has a loop of its own for as long as
# the guest runs, because sshfs ends when its server does.

# virtio_port NAME: its device in $dev. udev's links are missing in some guests.
virtio_port() {
	for d in /sys/class/virtio-ports/*; do
		[ -r "$d/name" ] && read -r port <"$d/name" && [ "$port" = "$1" ] || continue
		dev=/dev/${d##*/}
		return
	done
	return 1
}

# mounted DIR: by us. The kernel writes blanks and backslashes in octal.
mounted() {
	while read -r _ dir type _; do
		[ "$type" = "$fstype" ] && [ "$(printf %b "$dir")" = "$1" ] && return
	done </proc/self/mounts
	return 1
}

# mount_vars N: mount point, options and device or path of a mount; one without is not there
mount_vars() {
	eval "mp=\$LIMA_CIDATA_MOUNTS_${1}_MOUNTPOINT opts=\$LIMA_CIDATA_MOUNTS_${1}_OPTIONS tag=\$LIMA_CIDATA_MOUNTS_${1}_TAG"
}

# The mounts that this one is in are there.
outer_mounted() {
	inner=$mp
	o=0
	while [ "$o" -lt "$LIMA_CIDATA_MOUNTS" ]; do
		mount_vars $o
		case ${mp:+$inner} in "$mp"/*) mounted "$mp" || { mp=$inner; return 1; } ;; esac
		o=$((o + 1))
	done
	mount_vars "$i"
}

# In the user's home the user gets what has to be made for a mount point.
mount_point() {
	[ ! -d "$mp" ] || return 0
	top=$mp
	while [ -n "${top%/*}" ] && [ ! -e "${top%/*}" ]; do top=${top%/*}; done
	mkdir -p "$mp" || return
	case $mp in "$home"/*) chown -R "$uid:$gid" "$top" ;; esac
}

# A process that becomes sshfs. First it says SFTP's first packet, INIT of
# version 3, itself: the port takes it when a server is there and not before, and
# until then a mount would hang whoever looks at it.
mount_once() {
	virtio_port "lima.mnt.$i" || { echo "no virtio-serial port lima.mnt.$i" >&2; exit 1; }
	mount_point || exit
	exec 3<>"$dev"
	printf '\0\0\0\005\001\0\0\0\003' >&3
	hello=$(timeout 20 dd bs=4096 count=1 <&3 2>/dev/null)
	[ -n "$hello" ] || { echo "the host does not serve it" >&2; exit 1; }
	exec sshfs ":$tag" "$mp" -f -o "$opts$links" <&3 >&3 3<&-
}

mount_loop() {
	cd / || exit
	while :; do
		until outer_mounted; do sleep 0.2; done
		(mount_once) 2>"$mount_run/$i"
		: >"$mount_run/$i.ended"
		! mounted "$mp" || umount -l "$mp"
		# QEMU tells the host of opening and closing once a second.
		sleep 1
	done
}

# 9p and virtiofs: the kernel mounts a device of QEMU's, the outer ones first.
mount_devices() {
	modprobe -q "$fstype"
	[ "$fstype" != 9p ] || modprobe -q 9pnet_virtio
	more=1
	while [ -n "$more" ]; do
		more='' i=0
		while [ "$i" -lt "$LIMA_CIDATA_MOUNTS" ]; do
			mount_vars $i
			if [ -n "$mp" ] && [ ! -e "$mount_run/$i.ended" ] && outer_mounted; then
				mounted "$mp" || { mount_point && mount -t "$fstype" -o "$opts" "$tag" "$mp"; } 2>"$mount_run/$i" || :
				: >"$mount_run/$i.ended"
				more=1
			fi
			i=$((i + 1))
		done
	done
	grep -q "[[:blank:]]$fstype\$" /proc/filesystems ||
		missing="its kernel has no $fstype; set mountType to reverse-sshfs, or take an image whose kernel has it"
	i=0
	while [ "$i" -lt "$LIMA_CIDATA_MOUNTS" ]; do
		# one that waits for an outer one waits in vain
		[ -e "$mount_run/$i.ended" ] || : >"$mount_run/$i.ended"
		i=$((i + 1))
	done
}

# Begin with all of them at once. Not again where that was done since the boot.
mount_run=/run/lima-mount missing=
mounts() {
	[ "${LIMA_CIDATA_MOUNTS:-0}" != 0 ] || return 0
	if [ "$fstype" != fuse.sshfs ]; then
		mkdir -p $mount_run && mount_devices
		return
	fi
	command -v sshfs >/dev/null && mkdir $mount_run 2>/dev/null || return 0
	# Newer ones hide where a link leads that is absolute or has "..": they
	# distrust the server, which is the host here, and break node_modules.
	links=
	case $(sshfs -h 2>&1) in *no_contain_symlinks*) links=,no_contain_symlinks ;; esac
	[ -d /sys/class/virtio-ports ] || modprobe -q virtio_console
	[ -c /dev/fuse ] || modprobe -q fuse
	i=0
	while [ "$i" -lt "$LIMA_CIDATA_MOUNTS" ]; do
		mount_vars $i
		[ -z "$mp" ] || mount_loop </dev/null >/dev/null 2>&1 &
		i=$((i + 1))
	done
}

# A stock image may have no sshfs: it is installed once.
mount_tools() {
	[ "${LIMA_CIDATA_MOUNTS:-0}" != 0 ] && [ "$fstype" = fuse.sshfs ] && ! command -v sshfs >/dev/null || return 0
	[ -z "${LIMA_CIDATA_SKIP_DEFAULT_DEPENDENCY_RESOLUTION-}" ] || return 0
	package_manager
	case $pm in
	dnf | yum) install_packages fuse-sshfs ;;
	*) install_packages sshfs ;;
	esac && mounts
}

# Provision scripts and whoever logs in find everything mounted, unless it cannot
# be: then the host is told why.
mounts_ready() {
	[ "${LIMA_CIDATA_MOUNTS:-0}" != 0 ] || return 0
	tries=0 i=0
	while [ "$i" -lt "$LIMA_CIDATA_MOUNTS" ]; do
		mount_vars $i
		until [ -z "$mp" ] || mounted "$mp" || [ -e $mount_run/$i.ended ] || [ $tries -ge 300 ]; do
			tries=$((tries + 1))
			sleep 0.1
		done
		if [ -n "$mp" ] && ! mounted "$mp"; then
			why='the host does not serve it'
			[ "$fstype" != fuse.sshfs ] || command -v sshfs >/dev/null || why='sshfs is not installed'
			while IFS= read -r line; do why=$line; done <$mount_run/$i
			why=${missing:-$why}
			status=1
			reports="${reports}lima-mount-failed $mp: $why$nl"
		fi
		i=$((i + 1))
	done 2>/dev/null
}

# --- containerd -----------------------------------------------------------------

as_user() {
	sudo -u "$user" env "HOME=$home" "XDG_RUNTIME_DIR=/run/user/$uid" "PATH=$PATH" "$@"
}

# user_manager WORD...: systemctl of the user's, without a session of PAM for it
user_manager() {
	if command -v setpriv >/dev/null; then
		XDG_RUNTIME_DIR=/run/user/$uid setpriv --reuid "$uid" --regid "$gid" --clear-groups systemctl --user "$@"
	else
		as_user systemctl --user "$@"
	fi
}

# unpacked: what is installed is the archive that this instance has
unpacked() {
	slurp /var/lib/lima-boot/containerd
	[ "$text" = "$LIMA_CIDATA_CONTAINERD_ARCHIVE$nl" ]
}

# unpack_engine: the archive on a disk of its own, when it is a new one
unpack_engine() {
	! unpacked || return 0
	serial_device lima-nerdctl || { why='its archive is not attached'; return 1; }
	console 'lima-progress unpacking containerd and nerdctl'
	mkdir -p "$prefix" /var/lib/lima-boot && rm -f "$prefix/bin/nerdctl" "$prefix/bin/ctr" &&
		tar -C "$prefix" -xzf "/dev/$dev" &&
		printf '%s\n' "$LIMA_CIDATA_CONTAINERD_ARCHIVE" >/var/lib/lima-boot/containerd ||
		{ why='its archive cannot be unpacked'; return 1; }
	systemctl daemon-reload
}

# engine_file FILE MODE TEXT: written when it is not so already
engine_file() {
	slurp "$1"
	[ "$text" = "$3" ] || { mkdir -p "${1%/*}" && put "$1" "$2" 0:0 "$3"; }
}

# A unit that does with the packages what the archive's tool does: rootlesskit gives
# containerd a user namespace with a network, in which its state and its data are
# the user's. It is not enabled, for this script starts it, and knows when it is not
# wanted. Plugins that root alone can use cost seconds of an emulated CPU.
packaged_engine() {
	# shellcheck disable=SC2016  # variables of the scripts
	engine_file /etc/systemd/user/containerd.service 644 "[Unit]
Description=containerd without root
[Service]
Type=notify
NotifyAccess=all
ExecStart=rootlesskit --state-dir=%t/containerd-rootless --net=slirp4netns --mtu=65520 --slirp4netns-sandbox=auto --disable-host-loopback --port-driver=builtin --copy-up=/etc --copy-up=/run --copy-up=/var/lib --propagation=rslave sh -c 'rm -rf /run/containerd /var/lib/containerd; mkdir -p %t/containerd %h/.local/share/containerd /run/containerd /var/lib/containerd && mount --bind %t/containerd /run/containerd && mount --bind %h/.local/share/containerd /var/lib/containerd && c=%h/.config/containerd/config.toml && { [ -e \$\$c ] || c=/etc/containerd/rootless.toml; } && exec containerd -c \$\$c'
Delegate=yes
KillMode=mixed
Restart=on-failure
TimeoutStartSec=180
" && engine_file /etc/containerd/rootless.toml 644 'version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp"]
' && engine_file "$prefix/bin/ctr" 755 '#!/bin/sh
# ctr of the containerd of the user who calls it, started if it does not run (made
# by limactl); /usr/bin/ctr is that of root
[ "$(id -u)" != 0 ] || exec /usr/bin/ctr "$@"
XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
export XDG_RUNTIME_DIR
systemctl --user start containerd && p=$(cat "$XDG_RUNTIME_DIR/containerd-rootless/child_pid") || exit
# the cgroup that it takes by itself is for root
[ "${1-}" != run ] || { shift; set -- run --cgroup "ctr-$$" "$@"; }
exec nsenter -U --preserve-credentials -m -n --wd="$PWD" -t "$p" -- /usr/bin/ctr "$@"
' && engine_file "$prefix/bin/nerdctl" 755 '#!/bin/sh
# made by limactl
echo "nerdctl: not in this guest, whose containerd is of its packages: use ctr, or podman (limactl start template:podman), or create an instance where the archive of containerd.archives can be had" >&2
exit 127
'
}

# lazy: nobody asked for an engine, and only our ctr uses it: that starts it
lazy() {
	[ -n "${LIMA_CIDATA_CONTAINERD_LAZY-}" ] && [ -z "${LIMA_CIDATA_CONTAINERD_ARCHIVE-}" ]
}

# engine_start: with status 1 when there is no user manager, 2 when the engine fails.
# Not before the mounts are there: a login would wait for its share of the CPUs.
engine_start() {
	lazy || systemctl start "user@$uid.service" || return
	[ -n "${LIMA_CIDATA_CONTAINERD_ARCHIVE-}" ] || packaged_engine || return
	# one that ignores TERM must not keep a stop waiting for 90 s
	engine_file /etc/systemd/user/containerd.service.d/lima.conf 644 "[Service]${nl}TimeoutStopSec=20$nl" || return
	# udev may not have been here yet
	[ -c /dev/net/tun ] || modprobe -q tun
	! lazy || return 0
	user_manager start containerd.service || return 2
	# that of the archive does not say when it is ready
	tries=0
	until [ -S "/run/user/$uid/containerd/containerd.sock" ]; do
		[ $((tries += 1)) -le 150 ] || return 2
		sleep 0.2
	done
}

# user_engine: it runs at the end, set up by the tool of the archive where there is one
user_engine() {
	# Ubuntu lets no program make a user namespace that has no profile
	if [ -e /etc/apparmor.d/abi/4.0 ] && [ ! -e /etc/apparmor.d/usr.local.bin.rootlesskit ]; then
		printf 'abi <abi/4.0>,\ninclude <tunables/global>\nprofile lima-rootlesskit %s flags=(unconfined) {\n  userns,\n}\n' \
			"$(command -v rootlesskit)" >/etc/apparmor.d/usr.local.bin.rootlesskit && systemctl restart apparmor
	fi
	if [ -n "${LIMA_CIDATA_CONTAINERD_ARCHIVE-}" ] && [ ! -e "$home/.config/systemd/user/containerd.service" ]; then
		systemctl start "user@$uid.service" &&
			as_user containerd-rootless-setuptool.sh install >>"$provision_log" 2>&1 &&
			as_user env CONTAINERD_NAMESPACE=default containerd-rootless-setuptool.sh install-buildkit-containerd >>"$provision_log" 2>&1 ||
			{ why="containerd-rootless-setuptool.sh fails (hint: see $provision_log)"; return 1; }
	fi
	rc=0
	engine_start >/run/lima-engine.out 2>&1 </dev/null || rc=$?
	case $rc in
	0) return ;;
	2) why='it does not come up (hint: journalctl --user -u containerd)' ;;
	*) why='the manager of the user does not start' ;;
	esac
	return 1
}

containerd() {
	[ -n "${LIMA_CIDATA_CONTAINERD_USER-}${LIMA_CIDATA_CONTAINERD_SYSTEM-}" ] || return 0
	why='systemd is not the init system of this guest'
	prefix=${LIMA_CIDATA_GUEST_INSTALL_PREFIX:-/usr/local}
	from="the distribution's packages"
	if [ -d /run/systemd/system ] && if [ -n "${LIMA_CIDATA_CONTAINERD_ARCHIVE-}" ]; then
		from='the archive of nerdctl'
		unpack_engine
	else
		why='its packages cannot be installed'
		command -v rootlesskit >/dev/null && [ -x /usr/bin/containerd ] || install_packages containerd runc rootlesskit slirp4netns uidmap
	fi; then
		! lazy || from="$from, from its first use on"
		console "lima-progress using containerd of $from"
		[ -z "${LIMA_CIDATA_CONTAINERD_SYSTEM-}" ] || {
			why='its service does not start'
			systemctl enable -q --now containerd.service
		} || degraded "containerd is not there: $why"
		[ -z "${LIMA_CIDATA_CONTAINERD_USER-}" ] || user_engine || degraded "containerd is not there for the user: $why"
	else
		degraded "containerd is not there: $why"
	fi
}

# --- provisioning -------------------------------------------------------------


# run_one MODE FILE COMMAND...: run a script; when it fails the host is told
# which one, with its last lines. The next ones still run. The reports go out in
# one write with lima-boot-done: two writers would race, and the host stops
# waiting at that word.
run_one() {
	what=$1 file=$2
	shift 2
	printf -- '--- %s %s\n' "$what" "${file##*/}" >>"$provision_log"
	"$@" >/run/lima-provision.out 2>&1 </dev/null
	rc=$?
	cat /run/lima-provision.out >>"$provision_log"
	if [ $rc != 0 ]; then
		status=1
		text="lima-provision-failed $what ${file##*/} $rc$nl"
		tail -n 5 /run/lima-provision.out >/run/lima-provision.tail
		while IFS= read -r line || [ -n "$line" ]; do
			text="${text}lima-provision-output $line$nl"
		done </run/lima-provision.tail
		reports=$reports$text
	fi
	return $rc
}

# scripts MODE: run all of a mode as root, in order
scripts() {
	[ -d "$mnt/provision.$1" ] || return 0
	ok=0
	for f in "$mnt/provision.$1"/*; do
		case $1 in
		boot) run_one "$1" "$f" sh "$f" ;;
		*) run_one "$1" "$f" "$f" ;;
		esac || ok=1
	done
	return $ok
}

# as_owner OWNER COMMAND...: as the user of OWNER (user or user:group), else root
as_owner() {
	owner=${1%%:*}
	shift
	if [ "$owner" != root ] && [ "$owner" != 0 ] && command -v sudo >/dev/null; then
		sudo -u "$owner" "$@" 2>/dev/null && return
	fi
	"$@"
}

# file_vars PREFIX FILE: the settings of a data or yq entry
file_vars() {
	v=LIMA_CIDATA_$1_${2##*/}
	eval "path=\${${v}_PATH-} fowner=\${${v}_OWNER:-root:root} perm=\${${v}_PERMISSIONS:-644} over=\${${v}_OVERWRITE-true} format=\${${v}_FORMAT:-auto}"
}

put_data() {
	[ "$over" != false ] || [ ! -e "$path" ] || return 0
	[ -d "${path%/*}" ] || as_owner "$fowner" mkdir -p "${path%/*}"
	cp "$1" "$path" && chown "$fowner" "$path" && chmod "$perm" "$path"
}

edit_yq() {
	command -v yq >/dev/null || { echo "yq is not installed in this guest: mode yq needs it"; return 1; }
	[ -d "${path%/*}" ] || as_owner "$fowner" mkdir -p "${path%/*}"
	if [ "$format" = auto ]; then
		case ${path##*.} in
		json | toml | ini | xml | csv | tsv) format=${path##*.} ;;
		properties) format=props ;;
		*) format=yaml ;;
		esac
	fi
	slurp "$1"
	if [ -e "$path" ]; then
		yq -i -p "$format" -o "$format" "$text" "$path"
	else
		yq -n -o "$format" "$text" >"$path"
	fi && chown "$fowner" "$path" && chmod "$perm" "$path"
}

provision_files() {
	for f in "$mnt"/provision.data/*; do
		[ -e "$f" ] || continue
		file_vars DATAFILE "$f"
		run_one data "$f" put_data "$f"
	done
	for f in "$mnt"/provision.yq/*; do
		[ -e "$f" ] || continue
		file_vars YQ_PROVISION "$f"
		run_one yq "$f" edit_yq "$f"
	done
}

# A user script runs as in a login of the user, with the PARAM_ variables. The
# user's manager is started, which returns when it is ready.
provision_user() {
	[ -d "$mnt/provision.user" ] && [ -n "$user" ] || return 0
	if [ -d /run/systemd/system ]; then
		systemctl start "user@$uid.service" 2>/dev/null || log "no user manager for $user"
	fi
	keep=
	if slurp "$mnt/param.env"; then
		while [ -n "$text" ]; do
			keep="$keep,${text%%=*}"
			text=${text#*"$nl"}
		done
	fi
	for f in "$mnt"/provision.user/*; do
		cp "$f" "$home/.lima-user-script" && chown "$uid:$gid" "$home/.lima-user-script" &&
			chmod 755 "$home/.lima-user-script" || { fail "cannot write $home/.lima-user-script"; return; }
		run_one user "$f" sudo -iu "$user" --preserve-env="PATH${keep}" "XDG_RUNTIME_DIR=/run/user/$uid" "$home/.lima-user-script"
		rm -f "$home/.lima-user-script"
	done
}

# --- packages, names, certificates ----------------------------------------------

# The package manager; openSUSE has an apt-get that is none.
package_manager() {
	for pm in apt-get dnf yum pacman zypper apk; do
		command -v $pm >/dev/null || continue
		[ $pm != apt-get ] || [ ! -e /usr/bin/zypper ] || continue
		return 0
	done
	pm=
	return 1
}

# install_packages NAME...: from the distribution, with a line on the console
install_packages() {
	package_manager || { fail "no package manager here to install: $*"; return 1; }
	console "lima-progress installing $*"
	case $pm in
	apt-get) apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ;;
	dnf | yum) $pm install -y -q "$@" ;;
	pacman) pacman -Sy --noconfirm --needed "$@" ;;
	zypper) zypper -n -q install -y "$@" ;;
	apk) apk add -q "$@" ;;
	esac >>"$provision_log" 2>&1 </dev/null || { fail "cannot install $* (hint: see $provision_log in the guest)"; return 1; }
}

upgrade_packages() {
	[ -n "${LIMA_CIDATA_UPGRADE_PACKAGES-}" ] || return 0
	package_manager || return 0
	console "lima-progress upgrading packages"
	case $pm in
	apt-get) apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -y -qq dist-upgrade ;;
	dnf | yum) $pm upgrade -y -q ;;
	pacman) pacman -Syu --noconfirm ;;
	zypper) zypper -n -q update -y ;;
	apk) apk upgrade -q ;;
	esac >>"$provision_log" 2>&1 </dev/null || fail "cannot upgrade packages (hint: see $provision_log in the guest)"
}

# ca_certs: into the trust store, when they are not what is there
ca_certs() {
	dir='' new='' old=
	for d in /usr/local/share/ca-certificates /etc/pki/ca-trust/source/anchors \
		/etc/ca-certificates/trust-source/anchors /etc/pki/trust/anchors; do
		[ -d $d ] && dir=$d && break
	done
	[ -d "$mnt/ca-certs" ] || [ -n "${LIMA_CIDATA_CA_REMOVE_DEFAULTS-}" ] ||
		{ [ -n "$dir" ] && [ -e "$dir/lima-0000.crt" ]; } || return 0
	[ -n "$dir" ] || { fail "caCerts: no trust store found (package ca-certificates)"; return; }
	for f in "$mnt"/ca-certs/*.crt; do slurp "$f" && new=$new$text; done
	for f in "$dir"/lima-*.crt; do slurp "$f" && old=$old$text; done
	if [ -n "${LIMA_CIDATA_CA_REMOVE_DEFAULTS-}" ] && [ -f /etc/ca-certificates.conf ]; then
		grep -q '^[^#!]' /etc/ca-certificates.conf && sed -i 's/^[^#!]/!&/' /etc/ca-certificates.conf && old=changed
	fi
	[ "$old" = "$new" ] && return
	rm -f "$dir"/lima-*.crt
	for f in "$mnt"/ca-certs/*.crt; do
		[ ! -e "$f" ] || cp "$f" "$dir/lima-${f##*/}"
	done
	if command -v update-ca-certificates >/dev/null; then
		update-ca-certificates
	elif command -v update-ca-trust >/dev/null; then
		update-ca-trust
	else
		trust extract-compat
	fi >/dev/null 2>&1 || fail "caCerts: the trust store cannot be updated"
}

# dns: name servers of the configuration instead of the host's
dns() {
	servers=${LIMA_CIDATA_DNS-}
	file=/etc/systemd/resolved.conf.d/10-lima.conf
	if [ -L /etc/resolv.conf ] && [ -d /run/systemd/resolve ]; then
		new=
		[ -z "$servers" ] || new="[Resolve]${nl}DNS=$servers${nl}Domains=~.$nl"
		slurp $file
		[ "$text" = "$new" ] && return
		if [ -n "$new" ]; then
			mkdir -p /etc/systemd/resolved.conf.d && printf '%s' "$new" >$file
		else
			rm -f $file
		fi && systemctl restart systemd-resolved || fail "cannot set the name servers $servers"
		return
	fi
	[ -n "$servers" ] || return 0
	new=
	for s in $servers; do new="${new}nameserver $s$nl"; done
	slurp /etc/resolv.conf
	[ "$text" = "$new" ] || printf '%s' "$new" >/etc/resolv.conf || fail "cannot write /etc/resolv.conf"
}

# --- the two halves -----------------------------------------------------------

early() {
	rm_done
	if [ -r "$mnt/lima.env" ]; then
		env_file "$mnt/lima.env"
		fstype=${LIMA_CIDATA_MOUNTTYPE-}
		[ "$fstype" != reverse-sshfs ] || fstype=fuse.sshfs
	else
		fail "no lima.env on the cidata disk"
	fi
	[ -r "$mnt/param.env" ] && env_file "$mnt/param.env"
	[ -r "$mnt/etc_environment" ] && env_file "$mnt/etc_environment"
	scripts boot
	iid=${LIMA_CIDATA_IID-}
	printf '%s\n' "$iid" >/run/lima-iid
	host_key
	account
	if [ -n "$user" ]; then
		home_dir
		ssh_keys
		sudo_rule
		unlock_password
		subids
		linger
		host_services
	fi
	unlock_accounts
	host_name
	networks
	etc_hosts
	etc_environment
}

# /run is empty after a boot: a file is there only if we run again.
rm_done() {
	[ ! -e /run/lima-boot-done ] || rm -f /run/lima-boot-done /run/lima-ssh-ready
}

# An sshd that is already up shows its old key until it is restarted. Sessions
# survive that. Afterwards say that it listens, which is what the host waits
# for; on our own image ssh.service says it.
sshd_up() {
	[ -z "${LIMA_BOOT_FORK-}" ] || return 0
	if [ -n "$restart_sshd" ]; then
		if [ -d /run/systemd/system ]; then
			systemctl try-restart ssh.service sshd.service
		elif [ -x /sbin/rc-service ]; then
			rc-service sshd restart
		fi >/dev/null 2>&1 || log "cannot restart sshd"
	fi
	for f in /proc/net/tcp /proc/net/tcp6; do
		[ -r $f ] || continue
		while read -r _ addr _ state _; do
			case $addr/$state in
			*:0016/0A)
				printf '%s\n' "$iid" >/run/lima-ssh-ready
				console "lima-ssh-ready $iid"
				return ;;
			esac
		done <$f
	done
}

timezone() {
	tz=${LIMA_CIDATA_TIMEZONE-}
	case $tz in '' | *..* | /*) return 0 ;; esac
	slurp /etc/timezone
	[ "$text" = "$tz$nl" ] && return 0
	if [ ! -f "/usr/share/zoneinfo/$tz" ]; then
		log "no time zone $tz in this image (package tzdata)"
		return
	fi
	ln -sfn "../usr/share/zoneinfo/$tz" /etc/localtime && printf '%s\n' "$tz" >/etc/timezone ||
		fail "cannot set the time zone $tz"
}

# Without passwordless sudo the user needs a password once.
password() {
	[ -z "${LIMA_CIDATA_PASSWORDLESS_SUDO-}" ] && [ ! -e "$home/.lima-password-set" ] || return 0
	read -r a </proc/sys/kernel/random/uuid && read -r b </proc/sys/kernel/random/uuid
	word=${a%%-*}${b%%-*}
	printf '%s:%s\n' "$user" "$word" | chpasswd &&
		put "$home/password" 600 "$uid:$gid" "$word$nl" &&
		: >"$home/.lima-password-set" || fail "cannot set a password for $user"
}

# Let the root file system fill its device. Growing to 100 GiB takes seconds
# of an emulated CPU, and nobody waits for it: at the lowest priority, after
# the host was told that the boot is done.
grow_root() {
	dev='' fs=
	while read -r src dir type _; do
		[ "$dir" = / ] && dev=$src fs=$type
	done </proc/self/mounts
	if [ "$dev" = /dev/root ]; then         # a kernel that had no initrd says so
		while read -r _ _ src _ dir _; do
			[ "$dir" = / ] && slurp "/sys/dev/block/$src/uevent" && text=${text#*DEVNAME=} && dev=/dev/${text%%"$nl"*}
		done </proc/self/mountinfo
	fi
	disk=${dev#/dev/} part=
	case $dev in /dev/*) ;; *) return 0 ;; esac
	if [ ! -d "/sys/block/$disk" ]; then
		# A partition. cloud-init grows those where it is.
		[ -e /sys/class/block/"$disk"/partition ] && [ ! -e /run/cloud-init/enabled ] || return 0
		read -r part <"/sys/class/block/$disk/partition"
		disk=${disk%"$part"}
		[ -d "/sys/block/$disk" ] || disk=${disk%p}
	fi
	read -r size <"/sys/block/$disk/size" || return 0
	was=
	[ -r /var/lib/lima-boot/size ] && read -r was </var/lib/lima-boot/size
	[ "$size" = "$was" ] && return 0
	[ -z "$part" ] || grow_part "$disk" "$part"
	case $fs in
	ext[234]) nice -n 19 resize2fs "$dev" ;;
	xfs) nice -n 19 xfs_growfs / ;;
	btrfs) nice -n 19 btrfs filesystem resize max / ;;
	*) return 0 ;;
	esac >/dev/null 2>&1 || { fail "cannot grow the root file system on $dev"; return; }
	mkdir -p /var/lib/lima-boot && printf '%s\n' "$size" >/var/lib/lima-boot/size
}

# Put what was written on the disk before the host calls this VM running: one
# that is killed then, or loses power, must not come back with half a passwd.
# The first boot of a configuration always has something to keep.
keep_it() {
	kept=
	[ -r /var/lib/lima-boot/kept ] && read -r kept </var/lib/lima-boot/kept
	[ -n "$changed" ] || [ "$kept" != "$iid" ] || return 0
	sync
	[ "$kept" = "$iid" ] || { mkdir -p /var/lib/lima-boot && printf '%s\n' "$iid" >/var/lib/lima-boot/kept; } ||
		fail "cannot write to /var/lib/lima-boot"
}

# --- cloud-init, on a stock image ----------------------------------------------
# Its Python costs more than the rest of a boot together, and all it does for us
# from the second boot on is to start this script. So after the first good boot
# a unit does that, and cloud-init is off until what it acts on (user-data and
# network-config) changes. Plain instances keep what the image's maker meant.

cloud_script=/var/lib/cloud/scripts/per-boot/00-lima.boot.sh
cloud_off=/etc/cloud/cloud-init.disabled
cloud_kept=/var/lib/lima-boot/cloud

# in_unit NAME TEXT: a file below /etc/systemd/system
in_unit() {
	slurp "/etc/systemd/system/$1"
	[ "$text" != "$2" ] || return 0
	case $1 in */*) mkdir -p "/etc/systemd/system/${1%/*}" || return ;; esac
	printf '%s' "$2" >"/etc/systemd/system/$1"
}

# By cloud-init, at the end of a good boot.
replace_cloud_init() {
	[ -z "${LIMA_BOOT_FORK-}${LIMA_CIDATA_PLAIN-}" ] && [ "$status" = 0 ] && [ -f "$cloud_script" ] &&
		[ -d /run/systemd/system ] && [ -d /etc/cloud ] || return 0
	# In the place of cloud-init: before the network, which it may have to
	# set up, and before sshd, which needs the user.
	in_unit lima-boot.service "[Unit]
Description=Boot script of the cidata disk
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target ssh.service ssh.socket sshd.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
[Service]
Type=forking
RemainAfterExit=yes
Environment=LIMA_BOOT_FORK=1
ExecStart=/bin/sh $cloud_script
TimeoutStartSec=300
KillMode=process
StandardInput=null
[Install]
WantedBy=multi-user.target
" || return
	for u in ssh.service sshd.service ssh.socket; do
		systemctl is-enabled -q $u 2>/dev/null || continue
		kind=Service
		[ $u != ssh.socket ] || kind=Socket
		in_unit $u.d/lima.conf "[$kind]
ExecStartPost=-/bin/sh $mnt/boot.sh ready
" || return
	done
	systemctl enable -q lima-boot.service 2>/dev/null || return
	mkdir -p /var/lib/lima-boot && printf '%s\n' "$iid" >$cloud_kept && : >$cloud_off
}

# By the unit: user-data or network-config are new, so cloud-init has to act
# once more. It is started beside us, ends with this script, and is off again.
recall_cloud_init() {
	[ -n "${LIMA_BOOT_FORK-}" ] && [ -e $cloud_off ] || return 0
	kept=
	[ -r $cloud_kept ] && read -r kept <$cloud_kept
	[ "$kept" != "$iid" ] || [ -n "${LIMA_CIDATA_PLAIN-}" ] || return 0
	log 'cloud-init is started again, for the configuration changed'
	rm -f $cloud_off
	[ -z "${LIMA_CIDATA_PLAIN-}" ] || rm -rf /etc/systemd/system/lima-boot.service \
		/etc/systemd/system/multi-user.target.wants/lima-boot.service \
		/etc/systemd/system/ssh.service.d/lima.conf /etc/systemd/system/sshd.service.d/lima.conf \
		/etc/systemd/system/ssh.socket.d/lima.conf
	systemctl start --no-block cloud-init-local.service cloud-init.service cloud-config.service cloud-final.service &&
		recalled=1 || fail 'cannot start cloud-init again'
}

# "boot.sh ready", after sshd has begun to listen: say so to the host.
say_ready() {
	read -r iid </run/lima-iid || exit 0
	printf '%s\n' "$iid" >/run/lima-ssh-ready
	console "lima-ssh-ready $iid"
	exit 0
}

late() {
	sshd_up
	disks
	mounts
	guest_agent
	timezone
	[ -z "$user" ] || password
	dns
	ca_certs
	scripts dependency
	upgrade_packages
	mount_tools
	mounts_ready
	containerd
	provision_files
	scripts system
	provision_user
	replace_cloud_init || log 'cloud-init cannot be replaced and stays on'
	keep_it
	printf '%s\n' "$iid" >/run/lima-boot-done
	console "${reports}lima-boot-done $iid $status"
	grow_root
}

[ "${1-}" != ready ] || say_ready
early
recall_cloud_init
if [ -n "${LIMA_BOOT_FORK-}" ]; then
	# a cloud-init that was called runs this script too: not all of it twice at once
	[ -n "$recalled" ] || late &
	exit 0
fi
late
exit $status

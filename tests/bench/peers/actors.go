// SPDX-License-Identifier: BSD-3-Clause

// Goroutines as actors, each with one channel as its mailbox.
//
//	go-actors pingpong ROUNDS THREADS
//	go-actors counting MESSAGES THREADS
//	go-actors create ACTORS THREADS
//	go-actors idle ACTORS THREADS
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// Slots of the counting mailbox, as many as troupe's by default.
const mailboxLen = 1024

func die(what string) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(1)
}

func number(i int) int {
	if i >= len(os.Args) {
		die("usage: go-actors pingpong|counting|create|idle N THREADS")
	}
	n, err := strconv.Atoi(os.Args[i])
	if err != nil || n <= 0 {
		die("an argument is not a positive number")
	}
	return n
}

func residentBytes() float64 {
	var size, pages int
	file, err := os.Open("/proc/self/statm")
	if err != nil {
		die(err.Error())
	}
	defer file.Close()
	if _, err := fmt.Fscan(file, &size, &pages); err != nil {
		die(err.Error())
	}
	return float64(pages * os.Getpagesize())
}

func pingpong(rounds int) {
	ping, pong := make(chan int), make(chan int)
	done := make(chan bool)
	go func() {
		for left := range pong {
			ping <- left - 1
		}
	}()
	go func() {
		for i := 0; i < rounds; i++ {
			pong <- i
			<-ping
		}
		close(pong)
		done <- true
	}()
	<-done
}

func counting(messages int) {
	mailbox := make(chan int, mailboxLen)
	done := make(chan bool)
	go func() {
		for i := 0; i < messages; i++ {
			<-mailbox
		}
		done <- true
	}()
	go func() {
		for i := 0; i < messages; i++ {
			mailbox <- i
		}
	}()
	<-done
}

func create(actors int) {
	var handled int64
	done := make(chan bool, 1)
	for i := 0; i < actors; i++ {
		mailbox := make(chan int, 1)
		go func() {
			<-mailbox
			if atomic.AddInt64(&handled, 1) == int64(actors) {
				done <- true
			}
		}()
		mailbox <- i
	}
	<-done
}

func idle(actors int) {
	var started int64
	mailboxes := make([]chan int, actors)
	done := make(chan bool, 1)
	for i := range mailboxes {
		mailboxes[i] = nil // the slice is resident before
	}
	before := residentBytes()
	for i := range mailboxes {
		mailbox := make(chan int)
		mailboxes[i] = mailbox
		go func() {
			var value int
			if atomic.AddInt64(&started, 1) == int64(actors) {
				done <- true
			}
			for by := range mailbox {
				value += by
			}
		}()
	}
	<-done
	fmt.Printf("%.6g B bytes\n",
		(residentBytes()-before)/float64(actors))
	runtime.KeepAlive(mailboxes)
}

func timed(work func(int), n int, messages float64) {
	work(n/10 + 1)
	began := time.Now()
	work(n)
	fmt.Printf("%.6g ns message\n",
		float64(time.Since(began).Nanoseconds())/messages)
}

func main() {
	n := number(2)
	runtime.GOMAXPROCS(number(3))
	switch os.Args[1] {
	case "pingpong":
		timed(pingpong, n, 2*float64(n))
	case "counting":
		timed(counting, n, float64(n))
	case "create":
		timed(create, n, float64(n))
	case "idle":
		idle(n)
	default:
		die("usage: go-actors pingpong|counting|create|idle N THREADS")
	}
}

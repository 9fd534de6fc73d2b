@testset "convolutions by windows are NNlib's" begin
    rng = Xoshiro(1)
    windows = 0
    for _ in 1:60
        N, groups = rand(rng, 1:3), rand(rng, 1:2)
        some(range) = ntuple(_ -> rand(rng, range), N)
        space, kernel, stride, dilation = some(1:7), some(1:4), some(1:3), some(1:2)
        padding = ntuple(_ -> rand(rng, 0:3), 2N)
        reach = dilation .* (kernel .- 1) .+ 1
        all(space .+ padding[1:2:end] .+ padding[2:2:end] .>= reach) || continue
        windows += 1
        into, out = groups * rand(rng, 1:3), groups * rand(rng, 1:3)
        x, w, bias = randn(rng, space..., into, 3), randn(rng, kernel..., into ÷ groups, out), randn(rng, out)
        dims = NNlib.DenseConvDims(x, w; stride, padding, dilation, groups, flipkernel=rand(rng, Bool))
        y = NNlib.conv(x, w, dims)
        @test UDLBridge.convolution(x, w, nothing, dims) ≈ y rtol = 1e-13
        @test UDLBridge.convolution(x, w, bias, dims) ≈ y .+ UDLBridge.along_channels(bias, y) rtol = 1e-13
        d = randn(rng, size(y)...)
        @test UDLBridge.convolution_back(d, w, dims) ≈ NNlib.∇conv_data(d, w, dims) rtol = 1e-13
        by_kernel = NNlib.∇conv_filter(x, d, dims)
        @test UDLBridge.kernel_gradient(x, d, dims) ≈ by_kernel rtol = 1e-13 atol = 1e-13
        each = fill(NaN, length(w), 2, 3)
        part = length(w) ÷ groups
        place(i, k, g) = reshape(view(each, ((g - 1) * part + 1):(g * part), k, i), out ÷ groups, :)
        UDLBridge.kernel_gradients!(place, x, [d, 2d], dims)
        summed = permutedims(reshape(sum(each[:, 1, :]; dims=2), out ÷ groups, :, groups), (2, 1, 3))
        @test reshape(summed, size(w)) ≈ by_kernel rtol = 1e-13 atol = 1e-13
        @test each[:, 2, :] ≈ 2 .* each[:, 1, :]
        _, back = Flux.Zygote.pullback((x, w, bias) -> UDLBridge.convolution(x, w, bias, dims), x, w, bias)
        @test all(map(≈, back(d), (NNlib.∇conv_data(d, w, dims), by_kernel, UDLBridge.sum_of_channels(d))))
    end
    @test windows > 30
end

@testset "runs of numbers are standardised as by broadcasting" begin
    x, d = randn(Xoshiro(2), 6, 5, 3), randn(Xoshiro(3), 6, 5, 3)
    for count in (1, 6, 30)
        by_broadcasting(x) = UDLBridge.standardised(view(x, :, :, :), count, 0.1)
        y, back = Flux.Zygote.pullback(by_broadcasting, x)
        found, found_back = Flux.Zygote.pullback(x -> UDLBridge.standardised(x, count, 0.1), x)
        @test found ≈ y rtol = 1e-13 atol = 1e-14
        @test only(found_back(d)) ≈ only(back(d)) rtol = 1e-12 atol = 1e-13
    end
end
